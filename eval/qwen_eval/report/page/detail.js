// One item in full: the prompt with its shared prefix folded, and the answer of each run.
function detail(pane, run, index, other, found) {
  pane.replaceChildren();
  pane.scrollTop = 0;
  if (index < 0) {
    pane.append(element("p", "faint", say("pick")));
    return;
  }
  const id = run.items.id[index];
  const otherIndex = other ? other.indices().get(id) : undefined;
  const group = run.group(index);
  const title = element("h2", "", id);
  if (group && !id.startsWith(group)) title.append(element("span", "faint", ` ${group}`));
  pane.append(title);
  const both = other && otherIndex !== undefined;
  const equal = both && run.head(index) + run.rest(index) === other.head(otherIndex) + other.rest(otherIndex);
  if (!other || equal) pane.append(promptPart(run, index, found));
  if (both && !equal) pane.append(element("p", "faint", say("prompts")));
  const target = run.target(index);
  if (target) pane.append(block(say("target"), target, found));
  const sides = element("div", other ? "sides" : "side");
  sides.append(side(run, index, found, other && !equal));
  if (other) sides.append(both ? side(other, otherIndex, found, !equal) : element("p", "faint", say("missing")));
  pane.append(sides);
}

function promptPart(run, index, found) {
  const part = element("section", "prompt", element("h3", "", say("prompt")));
  const head = run.head(index);
  if (head) {
    const items = run.sharing.get(run.items.head[index]);
    const folded = element("details", "", element("summary", "", say("shared", { n: head.length.toLocaleString(), items: items.toLocaleString() })));
    for (const message of messages(head)) folded.append(...turn(message, found));
    part.append(folded);
  }
  const rest = messages(run.rest(index));
  if (head && rest.length && !rest[0].role) rest[0].role = messages(head).at(-1).role; // the rest continues that message
  for (const message of rest) part.append(...turn(message, found));
  return part;
}

function turn(message, found) {
  const text = marked(element("pre"), message.content, found);
  return message.role ? [element("p", "role", message.role), text] : [text];
}

function side(run, index, found, withPrompt) {
  const status = run.status(index);
  const part = element("section", "answer", element("h3", "", run.about.model, element("span", "faint", ` ${run.about.precision} · ${run.about.run}`)));
  part.append(element("p", `verdict ${STATUS[status]}`, `${MARK[status]} ${say(STATUS[status])}`));
  if (withPrompt) part.append(promptPart(run, index, found));
  const reply = run.items.reply[index];
  if (reply.p) part.append(options(reply.p, reply.l, run.target(index), run.answer(index)));
  (reply.t || []).forEach((text, number) => {
    const name = reply.t.length > 1 ? say("sampleNumber", { n: number + 1, all: reply.t.length }) : say("reply");
    if (reply.r && reply.r[number]) {
      const folded = element("details", "", element("summary", "", say("reasoning")), marked(element("pre"), reply.r[number], found));
      part.append(folded);
    }
    part.append(block(name, text, found, say("ended", { why: reply.e[number] })));
  });
  if (reply.m) part.append(measured(reply.m));
  else part.append(extraction(run.items.answer[index], found));
  part.append(statistics(run, index));
  return part;
}

// The answer extracted from the reply: a letter, a number, or programs with their verdicts.
function extraction(answer, found) {
  if (!Array.isArray(answer)) {
    const text = typeof answer === "string" ? answer : answer === null ? "" : JSON.stringify(answer, null, 1);
    return block(say("extraction"), text, found);
  }
  const part = element("section", "", element("h4", "", say("extraction")));
  for (const program of answer) {
    part.append(marked(element("pre"), program.completion ?? JSON.stringify(program), found));
    if (program.verdict) part.append(element("p", "faint", `${program.verdict} ${program.detail || ""}`));
  }
  return part;
}

function block(name, text, found, note = "") {
  const part = element("section", "", element("h4", "", name));
  if (note) part.firstChild.append(element("span", "faint", ` ${note}`));
  part.append(text ? marked(element("pre"), text, found) : element("p", "faint", say("nothing")));
  return part;
}

function options(logs, labels, target, answer) {
  const table = element("table", "options", element("caption", "", say("options")));
  probabilities(logs).forEach((share, option) => {
    const letter = labels ? labels[option] : String.fromCharCode(65 + option);
    const meter = element("meter");
    Object.assign(meter, { min: 0, max: 1, value: share, title: logs[option] === null ? "-∞" : logs[option].toFixed(4) });
    const notes = [letter === target ? say("gold") : "", letter === answer ? say("chosen") : ""].filter(Boolean).join(", ");
    const row = element("tr", letter === target ? "gold" : "", element("th", "", letter), element("td", "", meter));
    row.append(element("td", "number", `${(100 * share).toFixed(1)}%`), element("td", "faint", notes));
    table.append(row);
  });
  return table;
}

function measured(sums) {
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const value = Math.exp(total(sums.nll) / total(sums.tokens));
  return block(say("measured"), [`${say("perplexity")} ${value.toFixed(4)}`, ...Object.entries(sums).map(([name, values]) => `${name}: ${[values].flat().join(", ")}`)].join("\n"), "");
}

function statistics(run, index) {
  const list = element("dl");
  run.items.statistics.forEach((name, column) => {
    const value = run.items.stats[index][column];
    if (value !== null) list.append(element("div", "", element("dt", "", name), element("dd", "", String(value))));
  });
  return element("details", "", element("summary", "", say("statistics")), list);
}

// Text with the search term highlighted.
function marked(node, text, found) {
  const low = text.toLowerCase();
  let at = 0;
  // lower case can differ in length from the text (İ): then positions do not match, and nothing is highlighted
  if (found && low.length === text.length) {
    for (let next = low.indexOf(found); next >= 0; next = low.indexOf(found, at)) {
      node.append(text.slice(at, next), element("mark", "", text.slice(next, next + found.length)));
      at = next + found.length;
    }
  }
  node.append(text.slice(at));
  return node;
}
