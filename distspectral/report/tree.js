/* The tree: where it is cut, and its top as a drawing whose joints can be chosen. */

const MOST_DRAWN = 120, LINES = [22, 44], TALL = 450, SVG = "http://www.w3.org/2000/svg";

class Tree {
  /** facts: children, rows, affinity, conductance, clusters, nodes; see TreeFacts in distspectral/report/data.py. */
  constructor(facts) {
    Object.assign(this, facts, { nLeaves: facts.clusters.length });
    let least = 1; // of the affinities merged so far, relative to chance; its logarithm says how weak a join is
    this.depths = Float64Array.from(facts.affinity, (affinity) => -Math.log10(least = Math.max(1e-6, Math.min(least, affinity))));
    this.nOwn = 1 + facts.clusters.reduce((most, cluster) => Math.max(most, cluster), 0);
  }

  child(node, side) {
    return this.children[2 * (node - this.nLeaves) + side];
  }

  /**
   * Cut into n clusters, numbered by falling rows; at the run's own number they keep its numbers.
   * Returns of: cluster by leaf; nodes: node by cluster.
   */
  cut(n) {
    const total = 2 * this.nLeaves - 1, top = Uint32Array.from({ length: total }, (_, node) => node);
    for (let node = total - n; node >= this.nLeaves; node--) {
      top[this.child(node, 0)] = top[this.child(node, 1)] = top[node];
    }
    const leaves = top.slice(0, this.nLeaves), nodes = [...new Set(leaves)].sort((a, b) => a - b);
    let numbered = nodes.slice().sort((a, b) => this.rows[b] - this.rows[a] || a - b);
    if (n === this.nOwn) leaves.forEach((node, leaf) => { numbered[this.clusters[leaf]] = node; });
    const number = new Map(numbered.map((node, cluster) => [node, cluster]));
    return { of: leaves.map((node) => number.get(node)), nodes: numbered };
  }

  /** Return the clusters of a cut that are below a node. */
  below(node, number) {
    if (number.has(node)) return [number.get(node)];
    return node < this.nLeaves ? [] : [0, 1].flatMap((side) => this.below(this.child(node, side), number));
  }

  /** Draw the tree above a cut; told: {name(cluster), colour(cluster), isChosen(cluster), choose(clusters)}. */
  draw(nodes, told) {
    const number = new Map(nodes.map((node, cluster) => [node, cluster])), root = 2 * this.nLeaves - 2;
    const width = 420, names = 150, place = new Map(), lines = [], first = root - nodes.length + 2;
    const height = Math.min(LINES[1], Math.max(LINES[0], TALL / nodes.length));
    const weakest = this.depths[root - this.nLeaves] || 1;
    /* Half by the order of mergers, so that no two joints meet, and half by how weak they are. */
    const across = (node) => (number.has(node) ? width - names : width - names - 16 - (width - names - 24)
      * (0.5 * (node - first + 1) / (root - first + 1) + 0.5 * this.depths[node - this.nLeaves] / weakest));
    const svg = make("svg", { role: "group", "aria-label": "Tree of clusters" });
    const walk = (node) => {
      if (number.has(node)) {
        place.set(node, height * (lines.length + 0.5));
        lines.push(node);
        return;
      }
      [0, 1].forEach((side) => walk(this.child(node, side)));
      place.set(node, (place.get(this.child(node, 0)) + place.get(this.child(node, 1))) / 2);
      const ends = [0, 1].map((side) => this.child(node, side)), x = across(node), found = this.below(node, number);
      const path = ends.map((end) => `M${x} ${place.get(node)}V${place.get(end)}H${across(end)}`).join("");
      svg.append(make("path", { d: path, class: found.every(told.isChosen) ? "branch chosen" : "branch" }));
      const joint = make("circle", { cx: x, cy: place.get(node), r: 5, class: "joint", tabindex: 0, role: "button", "data-key": `node ${node}`,
        "aria-label": `${found.length} clusters, affinity ${shown(this.affinity[node - this.nLeaves])}` });
      joint.append(titled(`${found.length} clusters, ${count(this.rows[node])} rows; affinity ${
        shown(this.affinity[node - this.nLeaves])} times what chance gives`));
      pressed(joint, () => told.choose(found));
      svg.append(joint);
    };
    walk(root);
    for (const node of lines) {
      const cluster = number.get(node), y = place.get(node), isChosen = told.isChosen(cluster);
      const group = make("g", { class: isChosen ? "leaf chosen" : "leaf", tabindex: 0, role: "button", "aria-pressed": isChosen, "data-key": `node ${node}` });
      group.append(make("rect", { x: width - names + 2, y: y - height / 2, width: names - 4, height, class: "hit" }),
        make("circle", { cx: width - names + 10, cy: y, r: 5, fill: told.colour(cluster) }));
      const text = make("text", { x: width - names + 20, y: y + 4 });
      text.textContent = clipped(`${told.name(cluster)} · ${count(this.rows[node])}`, 20);
      group.append(text, titled(`${told.name(cluster)}: ${count(this.rows[node])} rows`));
      pressed(group, () => told.choose([cluster]));
      svg.append(group);
    }
    svg.setAttribute("viewBox", `0 0 ${width} ${height * lines.length}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height * lines.length);
    return svg;
  }
}

function make(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function titled(text) {
  const title = make("title", {});
  title.textContent = text;
  return title;
}

/** Let an element be pressed by pointer and by key. */
function pressed(node, act) {
  node.addEventListener("click", act);
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  });
}

const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
