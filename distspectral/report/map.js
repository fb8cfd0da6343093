/* The map: points by WebGL2, or by a plain canvas where there is none; density below, names above. */

const VERTEX = `#version 300 es
in vec2 place; in vec4 colour;
uniform vec2 scale, shift; uniform float size;
out vec4 tint;
void main() { gl_Position = vec4(place * scale + shift, 0.0, 1.0); gl_PointSize = size; tint = colour; }`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 tint; out vec4 seen;
void main() {
  float alpha = tint.a * (1.0 - smoothstep(0.7, 1.0, 2.0 * length(gl_PointCoord - 0.5)));
  if (alpha <= 0.0) discard;
  seen = vec4(tint.rgb * alpha, alpha);
}`;
const MOST_ZOOM = 400, GRID = 256, REACH = 14, MOST_RATIO = 2;
/* While the map moves, frames that take longer are drawn with fewer points, so many at least; at rest it has them all. */
const SLOW_MS = 24, FAST_MS = 18, FEWEST = 8000, REST_MS = 160;

class RowMap {
  /**
   * holder: element that is filled. rows: {n, x, y, place, density} with uint16 places.
   * heard: {hover(row, x, y), click(row)}; row is -1 where there is none.
   */
  constructor(holder, rows, heard) {
    Object.assign(this, { holder, rows, heard, names: [], marked: -1, zoom: 1, x: 0.5, y: 0.5, share: 1, nDim: 0 });
    [this.below, this.points, this.above] = [0, 1, 2].map(() => element("canvas", { "aria-hidden": "true" }));
    holder.prepend(this.below, this.points, this.above);
    this.gl = this.points.getContext("webgl2", { antialias: false });
    this.colours = new Uint8Array(4 * rows.n);
    this.order = shuffled(rows.n);
    this.cells = inCells(rows);
    if (rows.density) this.cloud = cloud(rows.density);
    if (this.gl) this.prepare();
    this.points.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.points.addEventListener("webglcontextrestored", () => { this.prepare(); this.recolour(); });
    this.listen();
    new ResizeObserver(() => this.resize()).observe(holder);
    this.resize();
  }

  prepare() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    const places = new Uint16Array(2 * this.rows.n);
    for (let row = 0; row < this.rows.n; row++) {
      places[2 * row] = this.rows.x[row];
      places[2 * row + 1] = this.rows.y[row];
    }
    const attribute = (name, width, type) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      const at = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, width, type, true, 0, 0);
    };
    attribute("place", 2, gl.UNSIGNED_SHORT);
    gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
    attribute("colour", 4, gl.UNSIGNED_BYTE);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    this.uniforms = Object.fromEntries(["scale", "shift", "size"].map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** Take the colour of each row (uint8 RGBA) and whether it lies above the others. */
  colour(of, isAbove) {
    const dim = [], high = [];
    for (const row of this.order) {
      this.colours.set(of(row), 4 * row);
      (isAbove(row) ? high : dim).push(row);
    }
    this.order = Uint32Array.from(dim.concat(high));
    this.nDim = dim.length;
    this.recolour();
  }

  recolour() {
    if (this.gl) {
      this.gl.bufferData(this.gl.ARRAY_BUFFER, this.colours, this.gl.DYNAMIC_DRAW);
      this.gl.bufferData(this.gl.ELEMENT_ARRAY_BUFFER, this.order, this.gl.DYNAMIC_DRAW);
    }
    this.redraw();
  }

  resize() {
    const ratio = Math.min(MOST_RATIO, window.devicePixelRatio || 1), { clientWidth, clientHeight } = this.holder;
    Object.assign(this, { width: clientWidth, height: clientHeight, ratio });
    for (const canvas of [this.below, this.points, this.above]) {
      canvas.width = clientWidth * ratio;
      canvas.height = clientHeight * ratio;
    }
    this.redraw();
  }

  /** Pixels of a unit of places on either axis; those of a map are square. */
  get units() {
    const { width, height, zoom } = this;
    if (this.rows.place !== "map") return [width * zoom, height * zoom];
    const side = Math.min(width, height) * zoom;
    return [side, side];
  }

  /** Where a place (0 to 1) is seen, in CSS pixels. */
  seen(x, y) {
    const [wide, high] = this.units;
    return [this.width / 2 + (x - this.x) * wide, this.height / 2 - (y - this.y) * high];
  }

  /** The place that is seen at a pixel. */
  place(left, top) {
    const [wide, high] = this.units;
    return [this.x + (left - this.width / 2) / wide, this.y - (top - this.height / 2) / high];
  }

  redraw() {
    this.frame ??= requestAnimationFrame((now) => {
      this.frame = null;
      if (this.rest) this.pace(now);
      this.draw();
    });
  }

  /** Redraw what is in motion, and all of it once it rests. */
  move() {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.rest = this.last = null;
      this.redraw();
    }, REST_MS);
    this.redraw();
  }

  /** Let the share of points that is drawn follow the time that the last frame of a movement took. */
  pace(now) {
    const took = now - (this.last ?? now - FAST_MS);
    this.last = now;
    if (took > REST_MS) return; // it stood still
    if (took > SLOW_MS) this.share = Math.max(Math.min(1, FEWEST / this.order.length), 0.7 * this.share);
    else if (took < FAST_MS) this.share = Math.min(1, 1.05 * this.share);
  }

  /** Where the order begins and ends that is drawn now: rows below, then those above; either order favours no row. */
  get parts() {
    const share = this.rest ? this.share : 1, { nDim, order } = this;
    if (share === 1) return [[0, order.length]];
    return [[0, Math.ceil(share * nDim)], [nDim, nDim + Math.ceil(share * (order.length - nDim))]];
  }

  get pointSize() {
    const base = Math.min(7, Math.max(2.4, 260 / Math.sqrt(this.rows.n + 1)));
    return Math.min(16, base * this.zoom ** 0.3);
  }

  draw() {
    const { ratio, width, height, gl } = this, [wide, high] = this.units, size = this.pointSize;
    const below = this.below.getContext("2d");
    below.setTransform(ratio, 0, 0, ratio, 0, 0);
    below.clearRect(0, 0, width, height);
    if (this.cloud) {
      const [left, top] = this.seen(0, 1);
      below.globalAlpha = 0.5;
      below.drawImage(this.cloud, left, top, wide, high);
    }
    if (gl) {
      gl.viewport(0, 0, this.points.width, this.points.height);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(this.uniforms.scale, (2 * wide) / width, (2 * high) / height);
      gl.uniform2f(this.uniforms.shift, (-2 * wide * this.x) / width, (-2 * high * this.y) / height);
      gl.uniform1f(this.uniforms.size, size * ratio);
      for (const [first, end] of this.parts) gl.drawElements(gl.POINTS, end - first, gl.UNSIGNED_INT, 4 * first);
    } else this.drawPlainly(size);
    this.drawNames();
    if (!this.drawn) performance.mark("map drawn");
    this.drawn = true;
  }

  drawPlainly(size) {
    const context = this.points.getContext("2d"), { x, y } = this.rows, { colours, ratio } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const shown = this.parts.flatMap(([first, end]) => [...this.order.subarray(first, end)]);
    for (const row of shown) {
      const [left, top] = this.seen(x[row] / 65535, y[row] / 65535);
      if (left < -9 || top < -9 || left > this.width + 9 || top > this.height + 9) continue;
      const [red, green, blue, alpha] = colours.subarray(4 * row, 4 * row + 4);
      context.fillStyle = `rgba(${red},${green},${blue},${alpha / 255})`;
      context.fillRect(left - size / 2, top - size / 2, size, size);
    }
  }

  drawNames() {
    const context = this.above.getContext("2d"), style = getComputedStyle(this.holder), taken = [];
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = `600 12px ${style.fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    for (const { text, x, y, isDim } of this.names) {
      const half = context.measureText(text).width / 2 + 3, [middle, top] = this.besides(x, y, half);
      const isInside = middle > -half && middle < this.width + half;
      const left = isInside ? Math.min(this.width - half, Math.max(half, middle)) : middle;
      const box = [left - half, top - 9, left + half, top + 9];
      if (isDim || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      taken.push(box);
      context.lineWidth = 4;
      context.strokeStyle = style.getPropertyValue("--card");
      context.strokeText(text, left, top);
      context.fillStyle = style.getPropertyValue("--ink");
      context.fillText(text, left, top);
    }
    if (this.marked < 0) return;
    const [left, top] = this.seen(this.rows.x[this.marked] / 65535, this.rows.y[this.marked] / 65535);
    context.lineWidth = 2;
    context.strokeStyle = style.getPropertyValue("--ink");
    context.beginPath();
    context.arc(left, top, this.pointSize / 2 + 3, 0, 7);
    context.stroke();
  }

  /** Where a name of so many pixels is drawn: in its cluster's middle, or beside a cluster that it would hide. */
  besides(x, y, half) {
    const [left, middle, right] = x.map((place) => this.seen(place, 0)[0]);
    const [low, centre, high] = y.map((place) => this.seen(0, place)[1]);
    if (right - left > 2 * half || low - high > 18) return [middle, centre];
    const away = 11 + this.pointSize / 2;
    return [middle, high < away + 9 ? low + away : high - away];
  }

  /** Ring a row, -1 for none. */
  mark(row) {
    if (row === this.marked) return;
    this.marked = row;
    this.redraw();
  }

  /** Return the row nearest to a pixel, -1 where none is near. */
  nearest(left, top) {
    const [wide, high] = this.units, reach = Math.max(REACH, this.pointSize);
    const [x, y] = this.place(left, top), { starts, rows } = this.cells;
    const cell = (value) => Math.min(GRID - 1, Math.max(0, Math.floor(value * GRID)));
    let best = -1, least = reach * reach;
    for (let column = cell(x - reach / wide); column <= cell(x + reach / wide); column++) {
      for (let line = cell(y - reach / high); line <= cell(y + reach / high); line++) {
        for (let at = starts[column * GRID + line]; at < starts[column * GRID + line + 1]; at++) {
          const row = rows[at];
          const across = (this.rows.x[row] / 65535 - x) * wide, along = (this.rows.y[row] / 65535 - y) * high;
          const squared = across * across + along * along;
          if (squared < least) [best, least] = [row, squared];
        }
      }
    }
    return best;
  }

  /** Zoom by a factor around a pixel. */
  zoomBy(factor, left = this.width / 2, top = this.height / 2) {
    const [x, y] = this.place(left, top);
    this.zoom = Math.min(MOST_ZOOM, Math.max(0.5, this.zoom * factor));
    const [wide, high] = this.units;
    this.centre(x - (left - this.width / 2) / wide, y + (top - this.height / 2) / high);
  }

  centre(x, y) {
    this.x = Math.min(1, Math.max(0, x));
    this.y = Math.min(1, Math.max(0, y));
    this.move();
  }

  showAll() {
    this.zoom = 1;
    this.centre(0.5, 0.5);
  }

  pan(across, along) {
    const [wide, high] = this.units;
    this.centre(this.x - across / wide, this.y + along / high);
  }

  /** Save what is seen as a picture. */
  save(name) {
    clearTimeout(this.rest);
    this.rest = this.last = null;
    this.draw(); // what WebGL drew is there until the browser has shown it
    const whole = element("canvas");
    [whole.width, whole.height] = [this.points.width, this.points.height];
    const context = whole.getContext("2d");
    context.fillStyle = getComputedStyle(this.holder).getPropertyValue("--card");
    context.fillRect(0, 0, whole.width, whole.height);
    for (const canvas of [this.below, this.points, this.above]) context.drawImage(canvas, 0, 0);
    whole.toBlob((blob) => download(blob, name));
  }

  listen() {
    const { holder } = this, held = new Map();
    let moved = 0;
    const at = (event) => {
      const box = holder.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const isTool = (event) => event.target.closest("button") !== null;
    holder.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...at(event));
    }, { passive: false });
    holder.addEventListener("pointerdown", (event) => {
      if (isTool(event)) return;
      held.set(event.pointerId, at(event));
      holder.setPointerCapture(event.pointerId);
      moved = 0;
    });
    holder.addEventListener("pointermove", (event) => {
      const place = at(event), before = held.get(event.pointerId);
      if (!before) {
        if (!isTool(event)) this.heard.hover(this.nearest(...place), ...place);
        return;
      }
      const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
        this.zoomBy(apart(place) / apart(before), other[0], other[1]);
      } else this.pan(place[0] - before[0], place[1] - before[1]);
      moved += Math.hypot(place[0] - before[0], place[1] - before[1]);
      held.set(event.pointerId, place);
      if (moved > 4) this.heard.hover(-1);
    });
    const release = (event) => {
      if (!held.delete(event.pointerId) || moved > 4 || event.type !== "pointerup") return;
      const place = at(event), row = this.nearest(...place);
      this.heard.hover(row, ...place);
      this.heard.click(row);
    };
    holder.addEventListener("pointerup", release);
    holder.addEventListener("pointercancel", release);
    holder.addEventListener("pointerleave", () => held.size || this.heard.hover(-1));
    const step = 60, keys = {
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0), ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step), "+": () => this.zoomBy(1.4), "=": () => this.zoomBy(1.4),
      "-": () => this.zoomBy(1 / 1.4), 0: () => this.showAll(), Escape: () => { this.heard.hover(-1); this.heard.click(-1); },
    };
    holder.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey || event.target !== holder) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
}

/** Return the numbers below n in an order that favours none; the same each time. */
function shuffled(n) {
  const order = Uint32Array.from({ length: n }, (_, row) => row);
  let state = 1;
  for (let last = n - 1; last > 0; last--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = Math.floor((state / 4294967296) * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

/** Return rows by the cell of a grid that they lie in, for the search of the nearest. */
function inCells({ n, x, y }) {
  const cell = (row) => (x[row] >> 8) * GRID + (y[row] >> 8), starts = new Uint32Array(GRID * GRID + 1);
  for (let row = 0; row < n; row++) starts[cell(row) + 1]++;
  for (let at = 0; at < GRID * GRID; at++) starts[at + 1] += starts[at];
  const next = starts.slice(), rows = new Uint32Array(n);
  for (let row = 0; row < n; row++) rows[next[cell(row)]++] = row;
  return { starts, rows };
}

/** Return the density as a picture. */
function cloud({ side, shades }) {
  const canvas = element("canvas", { width: side, height: side });
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  for (let line = 0; line < side; line++) {
    for (let column = 0; column < side; column++) {
      image.data.set([128, 140, 152, shades[(side - 1 - line) * side + column]], 4 * (line * side + column));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Hand a file to the person. */
function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name.replace(/[^\w.-]+/g, "_") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
