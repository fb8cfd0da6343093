/* The page: what is chosen, how rows are coloured and where the tree is cut; map, tree and table follow. */

const MOST_CLUSTERS = 200, MOST_COLOURS = 12, NO_COLOUR = [150, 158, 166];
const RAMP = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"].map(channels);

/** Return red, green and blue of a colour such as #0072b2. */
function channels(text) {
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

/** Return a colour from 0 to 1 of a scale from dark to bright. */
function onRamp(share) {
  const at = Math.min(0.999, Math.max(0, share)) * (RAMP.length - 1), low = Math.floor(at);
  return RAMP[low].map((value, part) => Math.round(value + (at - low) * (RAMP[low + 1][part] - value)));
}

/** Return the colour of the group with a number: those of the palette first, then hues far from one another. */
function ofGroup(number, palette, nGroups) {
  if (nGroups <= palette.length) return onGround(palette[number % palette.length]);
  const hue = (number * 137.508) % 360, light = [0.45, 0.6, 0.36][number % 3], strong = [0.62, 0.5, 0.7][number % 3];
  return onGround([0, 8, 4].map((shift) => {
    const at = (shift + hue / 30) % 12;
    return Math.round(255 * (light - strong * Math.min(light, 1 - light) * Math.max(-1, Math.min(at - 3, 9 - at, 1))));
  }));
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Return a colour that is seen on the page's ground: on a dark one, dark colours are mixed with white. */
function onGround(colour) {
  const light = (0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]) / 255;
  const mixed = DARK.matches ? Math.max(0, Math.min(0.5, 1.6 * (0.42 - light))) : 0;
  return colour.map((part) => Math.round(part + mixed * (255 - part)));
}

const css = (colour) => `rgb(${colour.join(",")})`;

class Page {
  constructor(data, parts) {
    Object.assign(this, { data }, parts);
    this.palette = data.palette.map(channels);
    this.nOwn = data.clusters.n_clusters;
    this.chosen = new Set();
    this.mode = "cluster";
    this.sorting = { by: "Cluster", isFalling: false };
    this.key = `distspectral ${data.fingerprint}`;
    this.names = {};
    try {
      this.names = JSON.parse(localStorage.getItem(this.key)) || {};
    } catch { /* a browser that keeps nothing for files */ }
    this.cutInto(this.nOwn);
  }

  get isOwn() {
    return this.nClusters === this.nOwn;
  }

  /** Take the clusters of a cut. */
  cutInto(n) {
    const { tree, rows } = this;
    this.nClusters = n;
    this.chosen.clear();
    const cut = tree ? tree.cut(n) : null;
    this.nodes = cut?.nodes ?? null;
    if (rows) {
      this.of = this.isOwn ? rows.cluster : rows.leaf.map((leaf) => cut.of[leaf]);
      this.examplesOf = null;
    }
  }

  // ---- what is known of a cluster --------------------------------------------------------------------------

  facts(cluster) {
    const { clusters, n_rows: total } = this.data;
    if (this.isOwn) {
      const facts = { rows: clusters.sizes[cluster], share: clusters.sizes[cluster] / Math.max(total, 1) };
      for (const name of ["silhouette", "conductance", "nearest", "stability"]) facts[name] = clusters[name]?.[cluster];
      return facts;
    }
    const node = this.nodes[cluster], rows = this.tree.rows[node];
    return { rows, share: rows / this.tree.rows[this.tree.rows.length - 1], conductance: this.tree.conductance[node] };
  }

  /** Names belong to a node of the run's tree, so that they outlive another cut. */
  nameKey(cluster) {
    return this.nodes ? String(this.tree.nodes[this.nodes[cluster]]) : `cluster ${cluster}`;
  }

  given(cluster) {
    return this.names[this.nameKey(cluster)]?.name ?? "";
  }

  name(cluster) {
    return this.given(cluster) || `cluster ${cluster}`;
  }

  rename(cluster, text) {
    const key = this.nameKey(cluster), name = text.trim();
    if (name) {
      this.names[key] = { name, node: this.nodes ? Number(key) : null, cluster, n_clusters: this.nClusters, rows: this.facts(cluster).rows };
    } else delete this.names[key];
    try {
      localStorage.setItem(this.key, JSON.stringify(this.names));
    } catch { /* as above */ }
    setTimeout(() => this.show()); // once the focus has moved on
  }

  colour(cluster) {
    return ofGroup(cluster, this.palette, this.nClusters);
  }

  isChosen(cluster) {
    return this.chosen.has(cluster);
  }

  choose(clusters) {
    const isSame = clusters.length === this.chosen.size && clusters.every((cluster) => this.chosen.has(cluster));
    this.chosen = new Set(isSame ? [] : clusters);
    this.show();
  }

  /** Return rows to look at: exemplars of the run's own clusters, rows of the map for any other cut. */
  examples(cluster, kind, most) {
    const { exemplars, exemplarPictures: seen, rows, rowPictures } = this;
    if (this.isOwn && exemplars) {
      if (kind === "any") return [];
      this.byCluster ??= grouped(exemplars.cluster);
      return (this.byCluster.get(cluster) ?? []).filter((at) => exemplars.kind[at] === kind).slice(0, most).map((at) => ({
        id: exemplars.ids[at],
        text: this.textOf(exemplars.columns, at),
        picture: seen?.has(at) ? () => seen.canvas(at, `row ${exemplars.ids[at]}`) : null,
      }));
    }
    if (!rows || (kind === "border") || (kind === "central" && most > FEW)) return [];
    this.examplesOf ??= grouped(this.of, 4 * MANY);
    let found = this.examplesOf.get(cluster) ?? [];
    if (rowPictures) found = found.filter((row) => rowPictures.has(row));
    return found.slice(0, most).map((row) => ({
      id: rows.ids?.[row] ?? "",
      text: this.textOf(Object.fromEntries(rows.columns.filter((one) => one.kind === "text").map((one) => [one.name, one.values])), row),
      picture: rowPictures ? () => rowPictures.canvas(row, `row ${rows.ids?.[row] ?? ""}`) : null,
    }));
  }

  /** Return the longest text of a row; the column with the longest ones is the one to read. */
  textOf(columns, at) {
    const texts = Object.values(columns).map((cells) => cells[at]).filter((cell) => typeof cell === "string");
    return texts.reduce((longest, text) => (text.length > longest.length ? text : longest), "");
  }

  get columns() {
    const known = (name, heading) => ({ heading, text: (facts) => shown(facts[name]), value: (facts) => facts[name] });
    const columns = [known("conductance", "Conductance")];
    if (!this.isOwn) return columns;
    columns.unshift(known("silhouette", "Silhouette"));
    if (this.data.clusters.stability) columns.push(known("stability", "Stability"));
    columns.push({ heading: "Nearest", text: (facts) => (facts.nearest >= 0 ? String(facts.nearest) : "–"),
      value: (facts) => (facts.nearest >= 0 ? facts.nearest : null) });
    if (this.data.labels) {
      const words = ({ name, share }) => `${name} (${percent(share)})`;
      columns.push({ heading: "Most frequent label", text: (_, cluster) => words(this.data.labels[cluster]),
        value: (_, cluster) => this.data.labels[cluster].name });
    }
    return columns;
  }

  // ---- colours -------------------------------------------------------------------------------------------

  /** Return how rows are coloured: of(row), and a legend of groups or of a range. */
  get shades() {
    const { rows, mode } = this;
    if (mode === "cluster") {
      const groups = Array.from({ length: this.nClusters }, (_, cluster) => [this.name(cluster), this.colour(cluster)]);
      return { of: (row) => groups[this.of[row]][1], groups };
    }
    if (mode === "outlier") {
      const groups = [["not an outlier", NO_COLOUR], ["outlier", this.palette[3]]];
      return { of: (row) => groups[rows.outlier[row]][1], groups };
    }
    const column = mode === "label" ? { kind: "category", ...rows.label } : rows.columns.find((one) => `column ${one.name}` === mode);
    if (column.kind === "category") {
      const groups = column.names.map((name, at) => [name || "(empty)", ofGroup(at, this.palette, column.names.length)]);
      return { of: (row) => groups[column.values[row]][1], groups };
    }
    const finite = Array.from(column.values).filter(Number.isFinite).sort((a, b) => a - b);
    const [low, high] = [0.01, 0.99].map((share) => finite[Math.floor(share * (finite.length - 1))] ?? 0);
    const of = (row) => (Number.isFinite(column.values[row]) ? onRamp((column.values[row] - low) / (high - low || 1)) : NO_COLOUR);
    return { of, range: [low, high] };
  }

  // ---- everything anew -----------------------------------------------------------------------------------

  show() {
    const { chosen } = this, numbers = this.sorted(), focused = document.activeElement?.dataset?.key;
    if (this.map) this.paint();
    if (this.tree) {
      const below = byId("tree"), isFew = this.nClusters <= MOST_DRAWN;
      below.replaceChildren(isFew ? this.tree.draw(this.nodes, this.told()) : element("p", { class: "hint" },
        `${count(this.nClusters)} clusters are too many to draw; cut into ${MOST_DRAWN} or fewer.`));
      byId("cut-number").textContent = `${this.nClusters}${this.isOwn ? " (the run's)" : ""}`;
      byId("cut").value = this.nClusters;
    }
    fillTable(byId("clusters"), { ...this.told(), numbers });
    fillChosen(byId("chosen"), [...chosen], this.told());
    const title = `${count(this.nClusters)} clusters`;
    byId("table-title").textContent = this.nClusters > MOST_LINES ? `The ${MOST_LINES} largest of ${title}` : title;
    document.querySelectorAll("[data-cut]").forEach((chip) => chip.setAttribute("aria-pressed", String(+chip.dataset.cut === this.nClusters)));
    if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  /** Return the clusters in the order of the table; those without a value come last either way. */
  sorted() {
    const numbers = Array.from({ length: this.nClusters }, (_, cluster) => cluster), { by, isFalling } = this.sorting;
    if (this.nClusters > MOST_LINES) numbers.sort((a, b) => this.facts(b).rows - this.facts(a).rows).splice(MOST_LINES);
    const own = { Name: (_, cluster) => this.given(cluster), Rows: (facts) => facts.rows, Share: (facts) => facts.share };
    const value = own[by] ?? this.columns.find((column) => column.heading === by)?.value ?? ((_, cluster) => cluster);
    const values = new Map(numbers.map((cluster) => [cluster, value(this.facts(cluster), cluster)]));
    const isMissing = (one) => one === null || one === undefined || one === "" || Number.isNaN(one);
    return numbers.sort((a, b) => {
      const [first, second] = [values.get(a), values.get(b)];
      if (isMissing(first) || isMissing(second)) return isMissing(first) - isMissing(second) || a - b;
      const rising = typeof first === "string" ? first.localeCompare(second, "en", { numeric: true }) : first - second;
      return (isFalling ? -rising : rising) || a - b;
    });
  }

  /** Sort by a column: numbers from the largest, texts and the clusters' own numbers from the first. */
  sortBy(heading) {
    const isSame = this.sorting.by === heading, isText = ["Cluster", "Name", "Nearest", "Most frequent label"].includes(heading);
    this.sorting = { by: heading, isFalling: isSame ? !this.sorting.isFalling : !isText };
    this.show();
  }

  told() {
    const shares = Array.from({ length: this.nClusters }, (_, cluster) => this.facts(cluster).share);
    const told = { columns: this.columns, sorting: this.sorting, largest: shares.reduce((most, share) => Math.max(most, share), 1e-9), colour: (cluster) => css(this.colour(cluster)) };
    for (const name of ["facts", "given", "name", "rename", "isChosen", "choose", "examples", "sortBy"]) told[name] = this[name].bind(this);
    return told;
  }

  paint() {
    const { rows, chosen } = this, shades = this.shades, isAny = chosen.size > 0;
    const isAbove = isAny ? (row) => chosen.has(this.of[row])
      : this.mode === "outlier" ? (row) => rows.outlier[row] === 1 : () => true;
    this.map.names = this.middles().map((one) => ({ ...one, text: clipped(this.given(one.cluster) || String(one.cluster), 22), isDim: isAny && !chosen.has(one.cluster) }));
    this.map.colour((row) => (isAny && !chosen.has(this.of[row]) ? [...NO_COLOUR, 60] : [...shades.of(row), 205]), isAbove);
    this.legend(shades);
  }

  /** Return the places below which a tenth, half and nine tenths of each cluster's rows lie, the largest first. */
  middles() {
    const spread = (values, members) => {
      const sorted = Float64Array.from(members, (row) => values[row]).sort(), last = members.length - 1;
      return [Math.floor(0.1 * last), members.length >> 1, Math.ceil(0.9 * last)].map((at) => sorted[at] / 65535);
    };
    const found = [...grouped(this.of, 2000)].filter(([, members]) => members.length);
    return found.sort((a, b) => b[1].length - a[1].length).slice(0, 80)
      .map(([cluster, members]) => ({ cluster, x: spread(this.rows.x, members), y: spread(this.rows.y, members) }));
  }

  legend({ groups, range }) {
    const legend = byId("legend");
    if (range) {
      const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => css(onRamp(share))).join(",");
      legend.replaceChildren(shown(range[0]), element("span", { class: "ramp", style: `background:linear-gradient(to right,${steps})` }), shown(range[1]));
      return;
    }
    const chips = groups.slice(0, MOST_COLOURS).map(([name, colour], at) => {
      const parts = [swatch(css(colour)), clipped(name, 24)];
      if (this.mode !== "cluster") return element("span", { class: "entry" }, ...parts);
      const chip = element("button", { type: "button", class: "entry", "aria-pressed": String(this.chosen.has(at)), "data-key": `legend ${at}` }, ...parts);
      chip.addEventListener("click", () => this.choose([at]));
      return chip;
    });
    const more = groups.length - chips.length;
    legend.replaceChildren(...chips, ...(more > 0 ? [element("span", { class: "entry" }, `and ${more} more`)] : []));
  }

  // ---- one row --------------------------------------------------------------------------------------------

  hover(row, left, top) {
    const tip = byId("tip"), { rows } = this;
    this.map.mark(row);
    tip.hidden = row < 0;
    if (row < 0) return;
    const cluster = this.of[row], lines = [["id", rows.ids?.[row]], ["cluster", this.name(cluster).replace(/^cluster /, "")]];
    if (rows.label) lines.push(["label", rows.label.names[rows.label.values[row]]]);
    if (rows.outlier?.[row]) lines.push(["outlier", "yes"]);
    for (const column of rows.columns) {
      const value = column.values[row];
      lines.push([column.name, column.kind === "number" ? shown(value) : column.kind === "category" ? column.names[value] : value]);
    }
    const told = lines.filter(([, value]) => value !== null && value !== undefined && value !== "");
    const picture = this.rowPictures?.has(row) ? this.rowPictures.canvas(row, "picture of the row") : null;
    tip.replaceChildren(...(picture ? [picture] : []), element("dl", {}, ...told.flatMap(([name, value]) =>
      [element("div", {}, element("dt", {}, clipped(name, 24)), element("dd", {}, clipped(String(value), LONGEST)))])));
    const { width, height } = this.map, room = 12;
    const right = left > width / 2, low = top > height / 2;
    tip.style.left = right ? "auto" : `${left + room}px`;
    tip.style.right = right ? `${width - left + room}px` : "auto";
    tip.style.top = low ? "auto" : `${top + room}px`;
    tip.style.bottom = low ? `${height - top + room}px` : "auto";
  }

  find(text) {
    const row = this.rows.ids?.indexOf(text.trim()) ?? -1;
    return row < 0 ? this.hover(-1) : this.reveal(row);
  }

  /** Show a row on the map, with what is known of it. */
  reveal(row) {
    const [x, y] = [this.rows.x[row] / 65535, this.rows.y[row] / 65535];
    this.map.zoom = Math.max(this.map.zoom, 4);
    this.map.centre(x, y);
    return this.hover(row, ...this.map.seen(this.map.x, this.map.y));
  }

  // ---- what can be pressed ---------------------------------------------------------------------------------

  listen() {
    const zooms = { in: () => this.map.zoomBy(1.5), out: () => this.map.zoomBy(1 / 1.5), all: () => this.map.showAll(),
      save: () => this.map.save(`${this.data.name}-map.png`) };
    document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", zooms[button.dataset.zoom]));
    document.querySelectorAll("[data-select]").forEach((chip) => chip.addEventListener("click", () => {
      if (!this.isOwn) this.cutInto(this.nOwn);
      this.choose([Number(chip.dataset.select)]);
      byId("chosen").scrollIntoView({ block: "center" });
    }));
    byId("save-names").hidden = false;
    byId("save-names").addEventListener("click", () => {
      const { name: run, fingerprint } = this.data, names = Object.values(this.names);
      download(new Blob([JSON.stringify({ run, fingerprint, names }, null, 2)], { type: "application/json" }), `${run}-names.json`);
    });
    if (!this.map) return;
    const colour = byId("colour"), { rows } = this;
    const modes = [["cluster", "cluster"], ...(rows.label ? [["label", "label"]] : []), ...(rows.outlier ? [["outlier", "outlier"]] : []),
      ...rows.columns.filter((one) => one.kind !== "text").map((one) => [`column ${one.name}`, clipped(one.name, 30)])];
    colour.replaceChildren(...modes.map(([value, text]) => element("option", { value }, text)));
    colour.addEventListener("change", () => { this.mode = colour.value; this.paint(); });
    byId("find").addEventListener("input", (event) => this.find(event.target.value));
    document.querySelectorAll("[data-row]").forEach((chip) => chip.addEventListener("click", () => {
      this.map.holder.scrollIntoView({ block: "center" });
      this.reveal(Number(chip.dataset.row));
      this.map.holder.focus({ preventScroll: true });
    }));
    if (!this.tree || !rows.leaf) return;
    const cut = byId("cut");
    cut.max = Math.min(this.tree.nLeaves, Math.max(60, 2 * this.nOwn), Math.max(MOST_CLUSTERS, this.nOwn));
    cut.addEventListener("input", () => { this.cutInto(Number(cut.value)); this.show(); });
    document.querySelectorAll("[data-cut]").forEach((chip) => chip.addEventListener("click", () => {
      this.cutInto(Math.min(Number(chip.dataset.cut), this.tree.nLeaves));
      this.show();
    }));
    byId("cut-tool").hidden = false;
    byId("candidates").hidden = false;
  }
}

/** Return the places of each value, so many of each at most. */
function grouped(values, most = Infinity) {
  const found = new Map();
  for (let at = 0; at < values.length; at++) {
    if (!found.has(values[at])) found.set(values[at], []);
    if (found.get(values[at]).length < most) found.get(values[at]).push(at);
  }
  return found;
}

const byId = (id) => document.getElementById(id);

/** Let every command be copied. */
function addCopying() {
  for (const command of document.querySelectorAll("pre.command")) {
    const button = element("button", { type: "button", class: "chip copy" }, "copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(command);
      }
    });
    command.after(button);
  }
}

/** Return the rows of the payload, unpacked. */
async function opened(found) {
  if (!found) return null;
  const [x, y, cluster, leaf, outlier, values, ids] = await Promise.all([array(found.x, "uint16"), array(found.y, "uint16"),
    typed(found.cluster), typed(found.leaf), typed(found.outlier), typed(found.label?.data), json(found.ids)]);
  const columns = await Promise.all(found.columns.map(async (column) => ({ name: column.name, kind: column.kind, names: column.names,
    values: await (column.kind === "text" ? json(column.data) : column.kind === "number" ? array(column.data, "float32") : typed(column.data)) })));
  const density = found.density ? { side: found.density.side, shades: await array(found.density.shades, "uint8") } : null;
  const label = values ? { names: found.label.names, values } : null;
  return { n: found.n, place: found.place, x, y, cluster, leaf, outlier, label, ids, columns, density };
}

/** Return the tree of the payload, unpacked; null of null. */
async function grown(found) {
  if (!found) return null;
  const kinds = { affinity: "float32", conductance: "float32", rows: "float64" };
  const parts = await Promise.all(Object.entries(found).map(async ([name, text]) => [name, await array(text, kinds[name] ?? "uint32")]));
  return new Tree(Object.fromEntries(parts));
}

async function start() {
  addCopying();
  if (!("DecompressionStream" in window)) {
    byId("too-old").hidden = false;
    return;
  }
  const data = JSON.parse(byId("data").textContent);
  const [rows, tree, rowPictures, exemplars, exemplarPictures] = await Promise.all([opened(data.rows), grown(data.tree),
    pictures(data.pictures), json(data.exemplars), pictures(data.exemplar_pictures)]);
  const page = new Page(data, { rows, tree, rowPictures, exemplars, exemplarPictures });
  if (rows) {
    for (const id of ["map-panel", "tools"]) byId(id).hidden = false;
    byId("tree-panel").hidden = !tree;
    page.map = new RowMap(byId("map"), rows, {
      hover: page.hover.bind(page),
      click: (row) => (row < 0 ? page.chosen.size && page.choose([]) : page.choose([page.of[row]])),
    });
  }
  DARK.addEventListener("change", () => page.show());
  page.listen();
  page.show();
  document.documentElement.dataset.state = "ready";
}

start();
