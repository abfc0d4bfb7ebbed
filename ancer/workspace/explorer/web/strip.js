// Images as thumbnails, of which one is chosen, with the mouse or the arrow keys.
function thumbnail({ number, title, mark, width, height, rgba }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const bytes = new Uint8ClampedArray(rgba.buffer.slice(rgba.byteOffset, rgba.byteOffset + rgba.byteLength));
  canvas.getContext("2d").putImageData(new ImageData(bytes, width, height), 0, 0);
  const button = document.createElement("button");
  button.type = "button";
  button.title = title;
  button.setAttribute("aria-label", title);
  button.dataset.number = number;
  button.className = mark;
  button.append(canvas);
  return button;
}

function render({ model, el }) {
  el.classList.add("ancer-strip");
  const choose = (number) => {
    model.set("value", number);
    model.save_changes();
  };
  const mark = () => {
    for (const button of el.children) {
      const chosen = Number(button.dataset.number) === model.get("value");
      button.setAttribute("aria-pressed", chosen);
      button.tabIndex = chosen ? 0 : -1;
      if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  };
  const draw = () => {
    el.replaceChildren(...model.get("thumbnails").map(thumbnail));
    if (el.firstChild) mark();
    else el.textContent = "No image is so.";
  };
  el.onclick = (event) => {
    const button = event.target.closest("button");
    if (button) choose(Number(button.dataset.number));
  };
  el.onkeydown = (event) => {
    const step = { ArrowLeft: "previousSibling", ArrowRight: "nextSibling" }[event.key];
    const next = step && event.target[step];
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    choose(Number(next.dataset.number));
    next.focus();
  };
  model.on("change:thumbnails", draw);
  model.on("change:value", mark);
  draw();
}

export default { render };
