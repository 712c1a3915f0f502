// The page's data: unpacking, and a run's items.
const STATUS = { r: "right", w: "wrong", i: "invalid", u: "unjudged" };
const MARK = { r: "✓", w: "✗", i: "∅", u: "·" };

async function unpack(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

class Run {
  constructor(about, pool) {
    this.about = about;
    this.items = about.items;
    this.pool = pool;
    this.size = this.items.id.length;
    this.sharing = new Map(); // index of a prompt's prefix -> number of items that have it
    for (const head of this.items.head) this.sharing.set(head, (this.sharing.get(head) || 0) + 1);
    this.lowered = null;
  }

  group(index) { return this.items.groups[this.items.group[index]]; }
  head(index) { return this.pool[this.items.head[index]]; }
  rest(index) { return this.pool[this.items.rest[index]]; }
  target(index) { return this.pool[this.items.target[index]]; }
  status(index) { return this.items.status[index]; }
  answer(index) { const answer = this.items.answer[index]; return typeof answer === "string" ? answer : answer === null ? "" : JSON.stringify(answer); }
  indices() { return this._indices ||= new Map(this.items.id.map((id, index) => [id, index])); }

  // The text of an item that is searched: its question, replies, extracted answer, target and id, in lower case.
  text(index) {
    this.lowered ||= new Array(this.size);
    return this.lowered[index] ||= [
      this.items.id[index], this.rest(index), ...(this.items.reply[index].t || []), ...(this.items.reply[index].r || []),
      this.answer(index), this.target(index),
    ].join("\n").toLowerCase();
  }

  // One line of the list: the question; the reply or answer where only the hash of the question is stored.
  snippet(index) {
    const hashed = (this.head(index) || this.rest(index)).startsWith(HASH);
    const text = hashed ? (this.items.reply[index].t || [])[0] || this.answer(index) : readable(this.rest(index));
    return text.slice(0, 200).replace(/\s+/g, " ").trim();
  }
}

const HASH = "\x1eSHA-256\x1f"; // begins what stands in the place of a prompt that was not stored

// The messages of a prompt; raw text is one message without a role. See samples.py for the separators.
function messages(prompt) {
  if (!prompt.includes("\x1e")) return [{ role: "", content: prompt }];
  return prompt.split("\x1e").filter((part, index) => index > 0 || part).map((part) => {
    const at = part.indexOf("\x1f");
    return at < 0 ? { role: "", content: part } : { role: part.slice(0, at), content: part.slice(at + 1) };
  });
}

function readable(prompt) { return prompt.replace(/\x1e[^\x1f]*\x1f/g, " "); }

// How an item differs between two runs: lost, won, changed or same; null where the other run has no such item.
function change(run, index, other) {
  const otherIndex = other.indices().get(run.items.id[index]);
  if (otherIndex === undefined) return null;
  const before = run.status(index) === "r", after = other.status(otherIndex) === "r";
  if (before !== after) return before ? "lost" : "won";
  return run.answer(index) === other.answer(otherIndex) && (run.answer(index) || same(run, index, other, otherIndex)) ? "same" : "changed";
}

function same(run, index, other, otherIndex) {
  return JSON.stringify(run.items.reply[index]) === JSON.stringify(other.items.reply[otherIndex]);
}

// Probabilities of the options: the model's log-probabilities, normalized to a sum of one.
// null is negative infinity: an option that the model rules out.
function probabilities(found) {
  const logs = found.map((value) => (value === null ? -Infinity : value));
  const top = Math.max(...logs);
  const weights = logs.map((value) => (value === -Infinity ? 0 : Math.exp(value - top)));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => (sum ? weight / sum : 0));
}
