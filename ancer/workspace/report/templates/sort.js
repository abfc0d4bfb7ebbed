// A click on a column's name sorts its table; text in the field above hides the lines without it.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 3) continue;
  table.querySelectorAll("th").forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "sort";
    let sign = 1;
    const sort = () => {
      sign = -sign;
      const value = (row) => row.cells[column].innerText.trim();
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return sign * (numbers ? x - y : x.localeCompare(y));
      };
      body.append(...[...body.rows].sort(order));
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
for (const field of document.querySelectorAll("input.filter")) {
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase().split(" ");
    for (const row of document.querySelectorAll("tbody tr")) {
      const texts = [...row.cells].map((cell) => cell.innerText.trim().toLowerCase());
      row.hidden = !wanted.every((word) => !word || texts.includes(word));
    }
  });
}
