// The three charts of an explorer; each returns its Chart.js chart.
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
    ticks: { color: () => colour("quiet"), maxTicksLimit: 6 },
    ...more,
  };
}

const legend = {
  labels: { color: () => colour("text"), boxHeight: 7, filter: (x) => x.text !== "" },
  onClick: () => {},
};

function of(set, more = {}) {
  const name = set === 0 ? "ind" : "ood";
  return {
    label: set === 0 ? "in-distribution" : "OoD",
    pointStyle: set === 0 ? "circle" : "triangle",
    borderColor: () => colour(name),
    backgroundColor: () => (set === 0 ? `${colour("ind")}99` : "transparent"),
    pointRadius: set === 0 ? 3 : 4,
    pointHoverRadius: 9,
    pointHoverBorderWidth: 3,
    pointHoverBorderColor: () => colour("text"),
    pointHoverBackgroundColor: () => colour(name),
    ...more,
  };
}

function line(label, more = {}) {
  const ink = () => colour("text");
  return { label, showLine: true, pointRadius: 0, pointHitRadius: 0, borderWidth: 1.5, borderColor: ink, pointStyle: "line", ...more };
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

function histogram(canvas) {
  const bar = (set) => ({
    ...line(set === 0 ? "in-distribution" : "OoD"),
    borderColor: () => colour(set === 0 ? "ind" : "ood"),
    backgroundColor: () => `${colour(set === 0 ? "ind" : "ood")}22`,
    borderDash: set === 0 ? [] : [5, 3],
    stepped: "before",
    fill: "origin",
    data: [],
  });
  return new Chart(canvas, {
    type: "scatter",
    data: { datasets: [bar(0), bar(1), line("threshold", { borderDash: [2, 2], data: [] })] },
    options: {
      scales: { x: axis("score"), y: axis("share of a set in %", { min: 0 }) },
      events: [],
      plugins: { legend },
    },
  });
}
