// A document with just what the page's script uses; runs the script of the file named on the
// command line, hovers the first edge, filters, and prints what a browser would show.
"use strict";
const fs = require("fs");
const html = fs.readFileSync(process.argv[2], "utf8");
const scripts = [...html.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)];
const make = (attributes) => {
  const classes = new Set();
  const listeners = {};
  return {
    attributes, classes, listeners, style: {}, value: attributes.value || "", textContent: "",
    hasAttribute: (name) => name in attributes,
    getAttribute: (name) => attributes[name],
    setAttribute: (name, value) => { attributes[name] = value; },
    classList: { toggle: (name, on) => (on ? classes.add(name) : classes.delete(name)) },
    addEventListener: (name, act) => { listeners[name] = act; },
  };
};
const every = (pattern) => [...html.matchAll(pattern)].map((found) => make({ [found[1]]: found[2] }));
const lists = {
  ".edge": every(/class="edge[^"]*" (data-e)="(\d+)"/g),
  ".hit": every(/class="hit" (data-e)="(\d+)"/g),
  ".node": every(/class="node" (data-n)="(\d+)"/g),
};
const ids = { data: make({}), graph: make({}), tip: make({}), target: make({}), least: make({ value: "0" }), count: make({}) };
ids.data.textContent = scripts[0][2];
ids.graph.querySelectorAll = (selector) => lists[selector];
const root = make({});
globalThis.document = { getElementById: (id) => ids[id], documentElement: root };
globalThis.window = { innerWidth: 1200, innerHeight: 900 };
new Function(scripts[1][2])();
const event = { target: lists[".edge"][0], clientX: 5, clientY: 5 };
ids.graph.listeners.mousemove(event);
const hovered = ids.tip.textContent;
ids.graph.listeners.mousemove({ target: lists[".node"][0], clientX: 5, clientY: 5 });
ids.least.value = "100";
ids.least.listeners.input();
console.log(JSON.stringify({
  ready: root.attributes["data-ready"], hovered, node: ids.tip.textContent,
  filtered: ids.count.textContent, faint: lists[".edge"].filter((e) => e.classes.has("faint")).length,
}));
