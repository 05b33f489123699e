// What the charts of all pages share.
"use strict";

Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.font.family = getComputedStyle(document.documentElement).fontFamily;
Chart.defaults.plugins.tooltip.enabled = false;
Chart.defaults.plugins.legend.labels.usePointStyle = true;
Chart.defaults.plugins.legend.position = "bottom";

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axis(title, more = {}) {
  return {
    type: "linear",
    title: { display: true, text: title, color: () => colour("quiet") },
    grid: { color: () => colour("rule") },
    ticks: { color: () => colour("quiet"), maxTicksLimit: 6, includeBounds: false },
    ...more,
  };
}

const legend = {
  labels: { color: () => colour("text"), boxHeight: 7, filter: (x) => x.text !== "" },
  onClick: () => {},
};

// Sets are told apart by colour, marker and line, as in the pictures.
const STYLES = {
  "in-distribution": { name: "ind", marker: "circle", dash: [], filled: true },
  OoD: { name: "ood", marker: "triangle", dash: [5, 3], filled: false },
  noise: { name: "noise", marker: "rect", dash: [2, 2], filled: true },
};
const OTHERS = [
  { name: "other", marker: "rectRot", dash: [8, 2, 2, 2], filled: false },
  { name: "another", marker: "crossRot", dash: [8, 3], filled: false },
];
const styleOf = (set, place) => STYLES[set] ?? OTHERS[place % OTHERS.length];

function of(set, place, more = {}) {
  const { name, marker, filled } = styleOf(set, place);
  return {
    label: set,
    pointStyle: marker,
    borderColor: () => colour(name),
    backgroundColor: () => (filled ? `${colour(name)}99` : "transparent"),
    pointRadius: filled ? 3 : 4,
    pointHoverRadius: 9,
    pointHoverBorderWidth: 3,
    pointHoverBorderColor: () => colour("text"),
    pointHoverBackgroundColor: () => colour(name),
    ...more,
  };
}

// Above all points: Chart.js draws what has the lowest order last.
function line(label, more = {}) {
  const ink = () => colour("text");
  return { label, order: -1, showLine: true, pointRadius: 0, pointHitRadius: 0, borderWidth: 1.5, borderColor: ink, pointStyle: "line", ...more };
}

// Points of `sets` are of images: { x, y, image }. `onImage` is told which is nearest.
function scatter(canvas, datasets, scales, onImage) {
  return new Chart(canvas, {
    type: "scatter",
    data: { datasets },
    options: {
      scales,
      interaction: { mode: "nearest", intersect: false },
      plugins: { legend },
      onHover: (event, found, chart) => {
        const images = found.map((e) => chart.data.datasets[e.datasetIndex].data[e.index].image);
        const image = images.find((i) => i !== undefined);
        if (image !== undefined && event.type === "mousemove") onImage(image);
      },
    },
  });
}

function highlight(chart, image) {
  const found = [];
  chart.data.datasets.forEach((set, datasetIndex) => {
    const index = set.data.findIndex((point) => point.image === image);
    if (index >= 0 && image !== undefined) found.push({ datasetIndex, index });
  });
  chart.setActiveElements(found);
  chart.update("none");
}

// A chart that nothing is asked of.
function plain(canvas, datasets, scales) {
  return new Chart(canvas, { type: "scatter", data: { datasets }, options: { scales, events: [], plugins: { legend } } });
}

// A histogram's outline, and what it is drawn from.
function outline(set, place) {
  const { name, dash } = styleOf(set, place);
  const more = { borderColor: () => colour(name), backgroundColor: () => `${colour(name)}22`, borderDash: dash };
  return line(set, { ...more, order: 0, stepped: "before", fill: "origin", data: [] });
}

const steps = (edges, heights) => edges.map((x, i) => ({ x, y: heights[Math.max(i - 1, 0)] }));
