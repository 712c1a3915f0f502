// Tabs, language and the table of runs; unpacks the data and starts the sample browser.
const tabs = [...document.querySelectorAll("[role=tab]")];

function openTab(tab, focus = false) {
  for (const each of tabs) {
    const on = each === tab;
    each.setAttribute("aria-selected", on);
    each.tabIndex = on ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !on;
  }
  if (focus) tab.focus();
}

document.getElementById("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) openTab(tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length], true);
});
for (const tab of tabs) tab.addEventListener("click", () => openTab(tab));

function runTable(runs) {
  const heads = ["run", "model", "precision", "figure", "answered", "seconds", "when", "signature", "first"];
  const head = element("tr");
  for (const name of heads) {
    const cell = element("th", "", say(name));
    cell.scope = "col";
    head.append(cell);
  }
  const body = element("tbody");
  for (const { about, size } of runs) {
    const cells = [about.run, about.model, about.precision, about.headline, size.toLocaleString(), about.seconds, about.timestamp, about.signature, firstPrompt(about.prompt)];
    body.append(element("tr", "", ...cells.map((text, column) => {
      const cell = element(column ? "td" : "th", column > 6 ? "code" : "", text);
      if (!column) cell.scope = "row";
      return cell;
    })));
  }
  document.getElementById("run-table").replaceChildren(element("thead", "", head), body);
}

// The first prompt as the model read it, folded; nothing where it is not known.
function firstPrompt(text) {
  return text ? element("details", "", element("summary", "", say("show")), element("pre", "", text)) : "";
}

function showError(text) {
  const node = document.getElementById("error");
  node.textContent = text;
  node.hidden = false;
}

async function start() {
  openTab(tabs[0]);
  const box = document.getElementById("language");
  box.value = language;
  speak();
  if (typeof DecompressionStream === "undefined") return showError(say("old"));
  const { runs: found, pool } = await unpack(document.getElementById("data").textContent);
  const runs = found.map((about) => new Run(about, pool));
  const samples = runs.length ? new Samples(runs) : null;
  const draw = () => {
    speak();
    runTable(runs);
    if (samples) samples.start();
    else showError(say("noRuns"));
  };
  box.addEventListener("change", () => { language = box.value; draw(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
      event.preventDefault();
      openTab(tabs[0]);
      document.getElementById("search").focus();
    }
  });
  draw();
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => showError(String(error)));
