// The sample browser: filters, order, and the list beside the selected item.
class Samples {
  constructor(runs) {
    this.runs = runs;
    for (const name of ["benchmark", "run", "other", "group", "status", "search", "count", "detail"]) this[name] = document.getElementById(name);
    this.list = new VirtualList(document.getElementById("list"), document.getElementById("rows"),
      (row, index) => this.fill(row, index), (index) => this.open(index));
    this.benchmark.addEventListener("change", () => this.pickBenchmark());
    this.run.addEventListener("change", () => this.pickRun());
    this.other.addEventListener("change", () => this.pickOther());
    for (const box of [this.group, this.status]) box.addEventListener("change", () => this.filter());
    this.search.addEventListener("input", () => this.filter());
    document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  // Fills all texts, at the start and when the language changes. Selections are kept.
  start() {
    const kept = [this.benchmark, this.run, this.other, this.group, this.status].map((box) => box.value);
    fillSelect(this.benchmark, [...new Set(this.runs.map((run) => run.about.benchmark))].map((name) => [name, name]), kept[0]);
    this.pickBenchmark(kept.slice(1));
  }

  pickBenchmark(kept = []) {
    this.among = this.runs.filter((run) => run.about.benchmark === this.benchmark.value);
    fillSelect(this.run, this.among.map((run) => [run.about.run, label(run.about)]), kept[0]);
    this.pickRun(kept.slice(1));
  }

  pickRun(kept = []) {
    this.current = this.among.find((run) => run.about.run === this.run.value);
    const others = this.among.filter((run) => run !== this.current).map((run) => [run.about.run, label(run.about)]);
    fillSelect(this.other, [["", say("none")], ...others], kept[0]);
    fillSelect(this.group, [["", say("all")], ...this.current.items.groups.filter(Boolean).map((name) => [name, name])], kept[1]);
    this.pickOther(kept.slice(2));
  }

  pickOther(kept = []) {
    this.beside = this.among.find((run) => run.about.run === this.other.value) || null;
    const names = [...new Set(this.current.items.status)].map((letter) => STATUS[letter]);
    const states = ["right", "wrong", "invalid", "unjudged"].filter((name) => names.includes(name));
    const changes = this.beside ? ["flipped", "lost", "won", "changed", "same"] : [];
    fillSelect(this.status, [["", say("all")], ...[...states, ...changes].map((name) => [name, say(name)])], kept[0]);
    this.order();
    this.filter();
  }

  // The items in the order of the run; compared with another run, flipped items first, then those with another answer.
  order() {
    this.all = Array.from({ length: this.current.size }, (_, index) => index);
    this.changes = this.beside ? this.all.map((index) => change(this.current, index, this.beside)) : null;
    if (this.beside) {
      const rank = { lost: 0, won: 1, changed: 2, same: 3 };
      const ranks = this.changes.map((name) => (name === null ? 4 : rank[name]));
      this.all.sort((a, b) => ranks[a] - ranks[b] || a - b);
    }
  }

  filter() {
    this.found = this.search.value.trim().toLowerCase();
    const group = this.group.value, wanted = this.status.value;
    const shown = this.all.filter((index) =>
      (!group || this.current.group(index) === group) && (!wanted || this.is(index, wanted)) && this.holds(index));
    this.tell(shown);
    this.list.show(shown);
  }

  is(index, wanted) {
    const changed = this.changes && this.changes[index];
    return STATUS[this.current.status(index)] === wanted || changed === wanted || (wanted === "flipped" && (changed === "lost" || changed === "won"));
  }

  holds(index) {
    if (!this.found || this.current.text(index).includes(this.found)) return true;
    const otherIndex = this.beside && this.beside.indices().get(this.current.items.id[index]);
    return this.beside !== null && otherIndex !== undefined && this.beside.text(otherIndex).includes(this.found);
  }

  tell(shown) {
    const tally = { right: 0, wrong: 0, invalid: 0, unjudged: 0, lost: 0, won: 0 };
    for (const index of shown) {
      tally[STATUS[this.current.status(index)]]++;
      if (this.changes && this.changes[index] in tally) tally[this.changes[index]]++;
    }
    const words = [say("count", { shown: shown.length.toLocaleString(), all: this.current.size.toLocaleString() })];
    const numbers = Object.fromEntries(Object.entries(tally).map(([name, number]) => [name, number.toLocaleString()]));
    if (!tally.unjudged) words.push(say("tally", numbers));
    if (this.beside) words.push(say("flips", numbers));
    this.count.textContent = shown.length ? words.join(" · ") : say("empty");
  }

  fill(row, index) {
    const letters = [this.current.status(index)];
    if (this.beside) {
      const otherIndex = this.beside.indices().get(this.current.items.id[index]);
      if (otherIndex !== undefined) letters.push(this.beside.status(otherIndex));
    }
    const states = element("span", "states");
    for (const letter of letters) {
      const mark = element("span", `mark ${STATUS[letter]}`, MARK[letter]);
      mark.setAttribute("aria-label", say(STATUS[letter]));
      mark.setAttribute("role", "img");
      states.append(mark);
    }
    row.append(states, element("span", "words", element("span", "id", this.current.items.id[index]), element("span", "snippet", this.current.snippet(index))));
  }

  open(index) {
    detail(this.detail, this.current, index, this.beside, this.found);
  }
}

function label(about) {
  const [, , recipe, mode, shots] = about.signature.split("|");
  return [about.model, `${mode} ${shots.split(":")[1]}-shot`, about.precision, about.headline, recipe, about.context].filter(Boolean).join(" · ");
}

function fillSelect(box, options, value) {
  box.replaceChildren(...options.map(([key, text]) => {
    const option = element("option", "", text);
    option.value = key;
    return option;
  }));
  if (value !== undefined && options.some(([key]) => key === value)) box.value = value;
}
