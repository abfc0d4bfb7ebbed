// The square [0, 1]^2: a class landscape, regions over it, and a point that can be dragged or moved by the arrow keys.
const SIDE = 340;
const NS = "http://www.w3.org/2000/svg";

function element(name, attributes) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function shape({ center: [x, y], axes: [a, b], norm, color, dash, width, fill }) {
  const style = { stroke: color, "stroke-dasharray": dash, "stroke-width": width, fill: color, "fill-opacity": fill };
  const [cx, cy, rx, ry] = [x, 1 - y, a, b].map((value) => value * SIDE);
  if (norm === 2) return element("ellipse", { cx, cy, rx, ry, ...style });
  const points = `${cx + rx},${cy} ${cx},${cy - ry} ${cx - rx},${cy} ${cx},${cy + ry}`;
  return element("polygon", { points, ...style });
}

// an outline is drawn on a white one, to be seen on any ground
function cased(region) {
  if (region.fill > 0) return [shape(region)];
  return [shape({ ...region, color: "#fff", dash: "", width: region.width + 2.4 }), shape(region)];
}

function axes() {
  const texts = [["0", 5, SIDE - 6, "start"], ["x\u2081 = 1", SIDE - 5, SIDE - 6, "end"], ["x\u2082 = 1", 5, 15, "start"]];
  return texts.map(([said, x, y, anchor]) => {
    const node = element("text", { x, y, "text-anchor": anchor, class: "ancer-axis" });
    node.textContent = said;
    return node;
  });
}

function backdrop({ side, rgba }) {
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const bytes = new Uint8ClampedArray(rgba.buffer.slice(rgba.byteOffset, rgba.byteOffset + rgba.byteLength));
  const picture = canvas.getContext("2d");
  picture.putImageData(new ImageData(bytes, side, side), 0, 0);
  return canvas;
}

function render({ model, el }) {
  el.classList.add("ancer-plane");
  const title = document.createElement("div");
  title.textContent = model.get("title");
  const square = document.createElement("div");
  square.className = "ancer-square";
  square.style.width = square.style.height = `${SIDE}px`;
  const canvas = backdrop(model.get("landscape"));
  const svg = element("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, tabindex: 0 });
  square.append(canvas, svg);
  el.append(title, square);

  const draw = () => {
    const [x, y] = model.get("point");
    const dot = element("circle", { cx: x * SIDE, cy: (1 - y) * SIDE, r: 5, class: "ancer-point" });
    svg.replaceChildren(...model.get("regions").flatMap(cased), ...axes(), dot);
  };
  const move = (x, y) => {
    model.set("point", [x, y].map((value) => Math.min(1, Math.max(0, value))));
    model.save_changes();
    draw();
  };
  const drag = (event) => {
    if (!event.buttons) return;
    const { left, top, width } = svg.getBoundingClientRect();
    move((event.clientX - left) / width, 1 - (event.clientY - top) / width);
  };
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    svg.focus();
    drag(event);
  });
  svg.addEventListener("pointermove", drag);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, 0.02], ArrowDown: [0, -0.02] }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const [x, y] = model.get("point");
    move(x + step[0], y + step[1]);
  });
  model.on("change:regions change:point", draw);
  draw();
}

export default { render };
