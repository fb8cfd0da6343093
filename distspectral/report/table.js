/* The table of clusters, and the panel of the one that is chosen. */

const FEW = 6, MANY = 10, MOST_LINES = 500, LONGEST = 160;

/**
 * Fill the table. told: {numbers, facts(cluster), examples(cluster, kind, n), name, colour, isChosen, choose, rename,
 * columns, sorting, sortBy}.
 */
function fillTable(table, told) {
  const headings = ["Cluster", "Name", "Rows", "Share", ...told.columns.map((column) => column.heading)];
  const head = element("tr", {}, ...headings.map((heading) => sortable(heading, told)), element("th", { scope: "col" }, "Examples"));
  const lines = told.numbers.map((cluster) => tableLine(cluster, told));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...lines);
}

/** Return a heading that sorts the table by its column, and the other way round when pressed again. */
function sortable(heading, { sorting, sortBy }) {
  const isSorted = sorting.by === heading, way = sorting.isFalling ? "descending" : "ascending";
  const button = element("button", { type: "button", class: "sort", "data-key": `sort ${heading}` }, heading,
    isSorted ? element("span", { "aria-hidden": "true" }, sorting.isFalling ? "\u00a0↓" : "\u00a0↑") : null);
  button.addEventListener("click", () => sortBy(heading));
  return element("th", { scope: "col", "aria-sort": isSorted ? way : null }, button);
}

function tableLine(cluster, told) {
  const facts = told.facts(cluster), isChosen = told.isChosen(cluster);
  const button = element("button", { type: "button", class: "cluster", "aria-pressed": String(isChosen), "data-key": `line ${cluster}` },
    swatch(told.colour(cluster)), String(cluster));
  button.addEventListener("click", () => told.choose([cluster]));
  const name = element("input", { type: "text", "aria-label": `Name of cluster ${cluster}`, maxlength: 80, placeholder: "name it", "data-key": `name ${cluster}` });
  name.value = told.given(cluster);
  name.addEventListener("change", () => told.rename(cluster, name.value));
  const bar = element("span", { class: "bar", style: `--share:${facts.share / told.largest}` }, percent(facts.share));
  const cells = [bar, ...told.columns.map((column) => column.text(facts, cluster))];
  return element("tr", { "data-cluster": cluster, class: isChosen ? "chosen" : null },
    element("th", { scope: "row" }, button), element("td", { class: "name" }, name), element("td", {}, count(facts.rows)),
    ...cells.map((cell) => element("td", {}, cell)), element("td", { class: "examples" }, examples(told.examples(cluster, "central", FEW))));
}

/** Return pictures of rows, or texts, or ids where they have neither. */
function examples(rows, withText = false) {
  if (rows.length && rows.every((row) => row.picture)) {
    return element("span", { class: "pictures" }, ...rows.map((row) => titledBy(row.picture(), row.id)));
  }
  const texts = rows.filter((row) => row.text);
  if (texts.length) {
    const most = withText ? texts : texts.slice(0, 2);
    return element("ul", { class: "texts" }, ...most.map((row) => element("li", { title: row.id }, clipped(row.text, LONGEST))));
  }
  return element("span", { class: "ids" }, clipped(rows.slice(0, withText ? MANY : 3).map((row) => row.id).join(", "), 80));
}

function titledBy(node, title) {
  node.setAttribute("title", title);
  return node;
}

function swatch(colour) {
  return element("span", { class: "swatch", style: `background:${colour}`, "aria-hidden": "true" });
}

/** Fill the panel of what is chosen; nothing is: it is hidden. */
function fillChosen(panel, chosen, told) {
  panel.hidden = !chosen.length;
  if (!chosen.length) return panel.replaceChildren();
  const close = element("button", { type: "button", class: "chip" }, "choose none");
  close.addEventListener("click", () => told.choose([]));
  const rows = chosen.reduce((sum, cluster) => sum + told.facts(cluster).rows, 0);
  const title = chosen.length === 1 ? `${told.name(chosen[0])}: ${count(rows)} rows`
    : `${chosen.length} clusters: ${count(rows)} rows`;
  const parts = [element("div", { class: "heading" }, element("h3", {}, title), close)];
  if (chosen.length > 1) {
    const chips = chosen.map((cluster) => {
      const chip = element("button", { type: "button", class: "chip" }, swatch(told.colour(cluster)), told.name(cluster));
      chip.addEventListener("click", () => told.choose([cluster]));
      return chip;
    });
    return panel.replaceChildren(...parts, element("p", { class: "chips" }, ...chips));
  }
  const [cluster] = chosen, facts = told.facts(cluster);
  const told_of = told.columns.map((column) => [column.heading, column.text(facts, cluster)]);
  parts.push(element("p", { class: "hint" }, `${percent(facts.share)} of the rows. `,
    told_of.filter(([, text]) => typeof text === "string").map(([heading, text]) => `${heading}: ${text}`).join(". "), "."));
  for (const [kind, words] of [["central", "Most central"], ["border", "On the border"], ["any", "Some of its rows"]]) {
    const found = told.examples(cluster, kind, MANY);
    if (found.length) parts.push(element("h4", {}, words), examples(found, true));
  }
  return panel.replaceChildren(...parts);
}
