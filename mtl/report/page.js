"use strict";
(function () {
  // Sorting and filtering of tables; everything is readable without. Only textContent is ever set.
  function value(row, column) {
    var cell = row.cells[column], by = cell.getAttribute("data-v");
    if (by === null) { return cell.textContent.trim().toLowerCase(); }
    return by === "" ? null : Number(by);
  }
  function compare(a, b) {
    if (typeof a === "string" && typeof b === "string") { return a.localeCompare(b, undefined, { numeric: true }); }
    return a < b ? -1 : a > b ? 1 : 0;
  }
  function sort(table, column, down) {
    var body = table.tBodies[0];
    Array.from(body.rows).map(function (row) { return [value(row, column), row]; }).sort(function (one, other) {
      var a = one[0], b = other[0];
      // what has no value stands last, whichever way
      if (a === null || a === "" || b === null || b === "") { return (a === null || a === "") - (b === null || b === ""); }
      return down ? compare(b, a) : compare(a, b);
    }).forEach(function (pair) { body.appendChild(pair[1]); });
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      // no <button>: on paper, headings that are repeated would lose it
      var button = document.createElement("span");
      button.setAttribute("role", "button");
      button.tabIndex = 0;
      button.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(button);
      head.setAttribute("aria-sort", "none");
      function turn() {
        var now = head.getAttribute("aria-sort");
        var numbers = Array.from(table.tBodies[0].rows).some(function (row) { return typeof value(row, column) === "number"; });
        var down = now === "none" ? numbers : now === "ascending";
        heads.forEach(function (other) { other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      }
      button.addEventListener("click", turn);
      button.addEventListener("keydown", function (event) {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); }
      });
    });
  });
  document.querySelectorAll("table.filtered").forEach(function (table) {
    var label = document.createElement("label"), input = document.createElement("input"), count = document.createElement("span");
    var rows = Array.from(table.tBodies[0].rows);
    label.textContent = "show only rows with ";
    label.className = "filter";
    input.type = "search";
    count.setAttribute("role", "status");
    label.appendChild(input);
    label.appendChild(count);
    table.parentNode.parentNode.insertBefore(label, table.parentNode);
    input.addEventListener("input", function () {
      var words = input.value.toLowerCase().split(/\s+/), shown = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        var keep = words.every(function (word) { return text.indexOf(word) >= 0; });
        row.hidden = !keep;
        if (keep) { shown += 1; }
      });
      count.textContent = " " + shown + " of " + rows.length;
    });
  });
  document.documentElement.setAttribute("data-ready", "yes");
})();
