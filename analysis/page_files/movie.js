// Features and F* through training, their speeds beside; a slider over the steps.
"use strict";

const PAUSE = 350; // milliseconds between two moments

function play(element) {
  const told = JSON.parse(element.querySelector("script").textContent);
  element.append(document.getElementById("movie-parts").content.cloneNode(true));
  const find = (name) => element.querySelector(name);
  const [slider, button] = [find(".slider"), find(".play")];
  const last = told.steps.length - 1;
  slider.max = last;
  const share = told.share.map((part) => `${(100 * part).toFixed(0)} %`);
  const spot = ([x, y]) => ({ x, y });
  // Steps are spaced like logarithms; the first is 0.
  const place = (step) => Math.log10(1 + step);

  function range(i) {
    const values = [...told.points.flat(2), ...told.star].map((point) => point[i]);
    const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    const margin = 0.05 * (high - low) || 1;
    return { min: low - margin, max: high + margin };
  }

  const cloud = plain(
    find(".cloud"),
    [
      ...told.sets.map((name, i) => of(name, i, { data: [] })),
      line("F*", { data: [], showLine: false, pointStyle: "star", pointRadius: 9, pointBorderWidth: 2.5 }),
    ],
    { x: axis(`first component (${share[0]} of variance at the end)`, range(0)), y: axis(`second component (${share[1]})`, range(1)) },
  );
  const bars = plain(
    find(".bars"),
    told.sets.map((name, i) => outline(name, i)),
    { x: axis("‖dF/dt‖", { min: 0 }), y: axis("share of a set in %", { min: 0 }) },
  );
  const above0 = told.medians.flat().filter((speed) => speed > 0);
  const [least, most] = [Math.min(...above0), Math.max(...above0)];
  const decades = [0, ...Array.from({ length: 8 }, (_, k) => 10 ** k)].filter((step) => step <= told.steps[last]);
  const medians = plain(
    find(".medians"),
    [
      ...told.sets.map((name, i) => ({
        ...of(name, i), showLine: true, borderDash: styleOf(name, i).dash, borderWidth: 1.5,
        data: told.medians[i].map((y, k) => ({ x: place(told.steps[k]), y })),
      })),
      line("this step", { borderDash: [2, 2], data: [] }),
    ],
    {
      x: axis("step", {
        max: place(told.steps[last]),
        afterBuildTicks: (scale) => (scale.ticks = decades.map((step) => ({ value: place(step) }))),
        ticks: { color: () => colour("quiet"), autoSkip: false, callback: (x) => Math.round(10 ** x - 1).toLocaleString("en") },
      }),
      y: axis("median ‖dF/dt‖", { type: "logarithmic" }),
    },
  );

  function draw() {
    const k = Number(slider.value);
    find("output").textContent = told.steps[k].toLocaleString("en");
    told.sets.forEach((_, i) => {
      cloud.data.datasets[i].data = told.points[i][k].map(spot);
      bars.data.datasets[i].data = steps(told.bars[k].edges, told.bars[k].heights[i]);
    });
    cloud.data.datasets[told.sets.length].data = [spot(told.star[k])];
    const x = place(told.steps[k]);
    medians.data.datasets[told.sets.length].data = [{ x, y: least }, { x, y: most }];
    for (const chart of [cloud, bars, medians]) chart.update("none");
    const each = told.sets.map((name, i) => `${name} ${told.medians[i][k]}`);
    find(".readout").textContent = `Step ${told.steps[k]}, median speed: ${each.join(", ")}.`;
  }

  let timer;
  function stop() {
    clearInterval(timer);
    timer = undefined;
    button.textContent = "Play";
  }
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === last) slider.value = 0;
    draw();
    button.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      draw();
      if (Number(slider.value) === last) stop();
    }, PAUSE);
  });
  slider.addEventListener("input", () => {
    stop();
    draw();
  });
  draw();
}
