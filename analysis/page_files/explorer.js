// Where a threshold lies, what it accepts, and the images on either side of it.
"use strict";

const STRIP = 8; // images on either side
const percent = (part, whole) => `${((100 * part) / whole).toFixed(1)} %`;
const short = (value) => Number(value.toPrecision(4)).toString();

function explore(element) {
  const told = JSON.parse(element.querySelector("script").textContent);
  element.append(document.getElementById("explorer-parts").content.cloneNode(true));
  const find = (name) => element.querySelector(name);
  const [n, m] = told.totals;
  const setOf = (image) => (image < told.shown[0] ? 0 : 1);
  const names = Object.keys(told.rows);
  const method = find(".method");
  for (const name of names) method.add(new Option(name, name));
  const first = ["fssd", "fssd tiles", "fssd clean"].find((name) => names.includes(name));
  method.value = first ?? names[0];
  const slider = find(".slider");
  const levels = told.rows[names[0]].thresholds.length;
  slider.max = levels;
  slider.value = Math.round(0.95 * levels);

  // ---- one image

  const called = (image) => told.names?.[image] ?? ""; // its file or class; not in old files
  const nameOf = (image) =>
    `${told.sets[setOf(image)]} ${told.index[image]}${called(image) && `, ${called(image)}`}`;

  function tile(image) {
    if (!told.sprite) return "";
    const box = document.createElement("span");
    box.className = `tile ${setOf(image) ? "ood" : "ind"}`;
    box.title = nameOf(image);
    const { url, columns, rows } = told.sprite;
    const share = (at, count) => (count > 1 ? (100 * at) / (count - 1) : 0);
    box.style.backgroundImage = `url(${url})`;
    box.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    box.style.backgroundPosition =
      `${share(image % columns, columns)}% ${share(Math.floor(image / columns), rows)}%`;
    return box;
  }

  let seen;

  function look(image) {
    if (image === undefined) return;
    seen = image;
    const row = told.rows[method.value];
    const [ind, ood] = row.images.map((of) => of[image]);
    const text = document.createElement("p");
    text.textContent =
      `${nameOf(image)}: score ${short(row.scores[image])}. A threshold there accepts ` +
      `${percent(ind, n)} of in-distribution and ${percent(ood, m)} of OoD images.`;
    find(".look").replaceChildren(tile(image), text);
    for (const chart of [roc, cloud]) highlight(chart, image);
  }

  // ---- charts

  const images = told.index.map((_, image) => image);
  const ofSet = (set) => images.filter((image) => setOf(image) === set);
  const rate = { min: 0, max: 100 };
  const roc = scatter(
    find(".roc"),
    [line("", { data: [], order: 1 }), of(told.sets[0], 0, { data: [], pointRadius: 2 }), of(told.sets[1], 1, { data: [], pointRadius: 2.5 }), line("threshold", { data: [], showLine: false, pointStyle: "crossRot", pointRadius: 9, borderWidth: 3, pointBorderWidth: 3 })],
    { x: axis("OoD accepted in %", rate), y: axis("in-distribution accepted in %", rate) },
    look,
  );
  const spot = ([x, y]) => ({ x, y });
  const share = told.share.map((part) => `${(100 * part).toFixed(0)} %`);
  find(".cloud-title").textContent = `Features of ${told.layer}`;
  const cloud = scatter(
    find(".cloud"),
    [
      ...[0, 1].map((set) => of(told.sets[set], set, { data: ofSet(set).map((image) => ({ ...spot(told.points[image]), image })) })),
      line("F*", { data: [spot(told.star)], showLine: false, pointStyle: "star", pointRadius: 9, pointBorderWidth: 2.5 }),
    ],
    { x: axis(`first component (${share[0]} of variance)`), y: axis(`second component (${share[1]})`) },
    look,
  );
  const bars = plain(
    find(".bars"),
    [outline(told.sets[0], 0), outline(told.sets[1], 1), line("threshold", { borderDash: [2, 2], data: [] })],
    { x: axis("score"), y: axis("share of a set in %", { min: 0 }) },
  );

  function byScore() {
    const scores = told.rows[method.value].scores;
    return [...images].sort((a, b) => scores[b] - scores[a]);
  }

  function draw() {
    const row = told.rows[method.value];
    const at = (i) => ({ x: (100 * row.images[1][i]) / m, y: (100 * row.images[0][i]) / n });
    const known = [...images.map(at), ...row.levels[0].map((tp, k) => ({ x: (100 * row.levels[1][k]) / m, y: (100 * tp) / n }))];
    known.sort((a, b) => a.x - b.x || a.y - b.y);
    roc.data.datasets[0].data = [{ x: 0, y: 0 }, ...known, { x: 100, y: 100 }];
    for (const set of [0, 1]) {
      roc.data.datasets[1 + set].data = ofSet(set).map((image) => ({ ...at(image), image }));
      const total = told.totals[set];
      const heights = row.bars[set].map((count) => (100 * count) / total);
      bars.data.datasets[set].data = steps(row.edges, heights);
    }
    move();
    if (seen !== undefined) look(seen);
  }

  // ---- the threshold

  function move() {
    const row = told.rows[method.value];
    const k = slider.value - 1;
    const [tp, fp] = row.levels.map((of) => of[k]);
    const threshold = row.thresholds[k];
    find("output").textContent = `${((100 * slider.value) / levels).toFixed(1)} %`;
    find(".threshold").textContent = threshold.toPrecision(5);
    const counted = (part, whole) => `${percent(part, whole)} <small>${part} of ${whole}</small>`;
    find(".accepted").innerHTML = counted(tp, n);
    find(".false").innerHTML = counted(fp, m);
    find(".auroc").textContent = percent(row.auroc, 1);
    roc.data.datasets[3].data = [{ x: (100 * fp) / m, y: (100 * tp) / n }];
    const top = Math.max(...bars.data.datasets.slice(0, 2).flatMap((set) => set.data.map((p) => p.y)));
    bars.data.datasets[2].data = [{ x: threshold, y: 0 }, { x: threshold, y: top }];
    roc.update("none");
    bars.update("none");
    const order = byScore();
    // By counts, because a rounded score may lie on the other side.
    const accepted = (i) => row.images[0][i] <= tp && row.images[1][i] <= fp;
    strip(find(".above"), order.filter(accepted).slice(-STRIP).reverse(), row);
    strip(find(".below"), order.filter((i) => !accepted(i)).slice(0, STRIP), row);
  }

  function strip(list, found, row) {
    list.replaceChildren(
      ...found.map((image) => {
        const item = document.createElement("li");
        const text = document.createElement("span");
        const name = called(image).split("/").slice(-2).join("/"); // the class and the file
        text.textContent = `${setOf(image) ? "OoD" : "in"} ${told.index[image]}${name && ` ${name}`}: ${short(row.scores[image])}`;
        item.title = nameOf(image);
        item.append(tile(image), text);
        return item;
      }),
    );
    if (!found.length) list.innerHTML = '<li class="none">none</li>';
  }

  function keys(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const ends = { Home: 0, End: images.length - 1 };
    if (step === undefined && !(event.key in ends)) return;
    event.preventDefault();
    const order = byScore();
    const place = seen === undefined ? -1 : order.indexOf(seen);
    const next = step === undefined ? ends[event.key] : place + step;
    look(order[Math.min(Math.max(next, 0), images.length - 1)]);
  }

  method.addEventListener("change", draw);
  slider.addEventListener("input", move);
  for (const name of [".roc", ".cloud"]) find(name).addEventListener("keydown", keys);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const chart of [bars, roc, cloud]) chart.update("none");
  });
  draw();
}
