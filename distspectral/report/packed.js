"use strict";
/* What distspectral/report/packing.py wrote: little-endian arrays, deflated, in base64. */

const TYPES = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array,
};

/** Return the bytes of a packed string. */
async function unpacked(text) {
  const deflated = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Return a packed array. */
async function array(text, type) {
  return new TYPES[type](await unpacked(text));
}

/** Return an array that says its own type, null of null. */
async function typed(found) {
  return found ? array(found.data, found.type) : null;
}

/** Return packed JSON, null of null. */
async function json(text) {
  return text ? JSON.parse(new TextDecoder().decode(await unpacked(text))) : null;
}

/** Return pictures with a function that draws the one of a row into a canvas, null of null. */
async function pictures(found) {
  if (!found) return null;
  const tones = new Uint8Array(await unpacked(found.data));
  const { width, height, channels, step } = found, size = width * height * channels;
  return {
    has: (row) => row % step === 0 && (row / step + 1) * size <= tones.length,
    /** Return a canvas with the picture of a row. */
    canvas(row, name) {
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = height;
      canvas.className = "picture";
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", name);
      const context = canvas.getContext("2d"), image = context.createImageData(width, height);
      const first = (row / step) * size;
      for (let pixel = 0; pixel < width * height; pixel++) {
        for (let part = 0; part < 3; part++) image.data[4 * pixel + part] = tones[first + pixel * channels + part % channels];
        image.data[4 * pixel + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      return canvas;
    },
  };
}

/** Return an element with attributes and children; text is only ever text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const count = (value) => Math.round(value).toLocaleString("en");
const percent = (share) => (share > 0 && share < 0.001 ? "under 0.1%" : `${(100 * share).toFixed(1)}%`);
const shown = (value) => (!Number.isFinite(value) ? "–"
  : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(3)).toString());
