// Pictures pixel by pixel, the scale of theta and semi-axes, and bars that end where each region ends.
const SIDE = 150;

function panel({ title, width, height, rgba, values }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.style.width = `${SIDE}px`;
  canvas.style.height = `${(SIDE * height) / width}px`;
  const bytes = new Uint8ClampedArray(rgba.buffer.slice(rgba.byteOffset, rgba.byteOffset + rgba.byteLength));
  canvas.getContext("2d").putImageData(new ImageData(bytes, width, height), 0, 0);
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  canvas.onpointermove = ({ offsetX, offsetY }) => {
    const [x, y] = [Math.floor((offsetX * width) / SIDE), Math.floor((offsetY * width) / SIDE)];
    if (x >= 0 && y >= 0 && x < width && y < height) {
      const value = values.getFloat32(4 * (y * width + x), true);
      caption.textContent = `pixel (${x}, ${y}): ${value.toPrecision(3)}`;
    }
  };
  canvas.onpointerleave = () => (caption.textContent = title);
  const figure = document.createElement("figure");
  figure.append(canvas, caption);
  return figure;
}

function scale({ colors, low, high, largest }) {
  const box = document.createElement("div");
  box.className = "ancer-scale";
  const bar = document.createElement("span");
  bar.style.background = `linear-gradient(to right, ${colors.join(",")})`;
  const end = largest > high ? `${high.toPrecision(2)}, up to ${largest.toPrecision(2)}` : high.toPrecision(2);
  box.append("theta and semi-axes, one scale: ", low.toPrecision(2), bar, end);
  return box;
}

function bars({ size, limit, methods }) {
  const box = document.createElement("div");
  box.className = "ancer-bars";
  const share = (value) => `${Math.min(100, (100 * value) / limit)}%`;
  for (const { label, color, reach } of methods) {
    const [name, track, bar, end] = ["span", "span", "i", "b"].map((kind) => document.createElement(kind));
    name.textContent = label;
    bar.style.width = share(reach);
    bar.style.background = color;
    end.style.left = share(size);
    track.append(bar, end);
    const text = document.createElement("span");
    const ends = reach > 0 ? `up to ${reach.toFixed(3)}` : "abstains";
    text.textContent = reach > limit ? "to the end" : ends;
    box.append(name, track, text);
  }
  return box;
}

function render({ model, el }) {
  el.classList.add("ancer-pictures");
  const draw = () => {
    const row = document.createElement("div");
    row.className = "ancer-row";
    row.append(...model.get("panels").map(panel));
    el.replaceChildren(row, scale(model.get("scale")), bars(model.get("bars")));
  };
  model.on("change:panels", draw);
  if (model.get("panels").length) draw();
}

export default { render };
