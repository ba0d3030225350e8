// Shows belief maps over pictures: choose a picture, a person and a part, and move through the
// stages. The data are in the JSON beside the markup, pictures and maps as data URLs.
(() => {
  "use strict";

  // Dark violet to yellow, evenly brighter (the ends and middles of the viridis scale).
  const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const SWIPE = 40; // pixels that a finger moves to change the stage

  function colour(level) {
    const place = level * (COLOURS.length - 1);
    const low = Math.min(Math.floor(place), COLOURS.length - 2);
    const share = place - low;
    return COLOURS[low].map((v, i) => v + share * (COLOURS[low + 1][i] - v));
  }

  // What a byte of a map looks like: stronger beliefs hide more of the picture.
  const PAINT = new Uint8ClampedArray(256 * 4);
  for (let byte = 0; byte < 256; byte++) {
    PAINT.set([...colour(byte / 255), 70 + 150 * (byte / 255)], 4 * byte);
  }

  function load(source) {
    return new Promise((done, failed) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = () => failed(new Error("a picture of this page cannot be decoded"));
      image.src = source;
    });
  }

  function button(parent, label, press) {
    const made = document.createElement("button");
    made.type = "button";
    made.append(label);
    made.addEventListener("click", press);
    parent.append(made);
    return made;
  }

  class Viewer {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(root.querySelector("script").textContent);
      this.canvas = root.querySelector("canvas");
      this.at = { picture: 0, person: 0, part: 0, stage: 0 };
      this.images = new Map();
      this.drawing = 0;
      this.build();
      this.listen();
      this.choosePicture(0);
    }

    get picture() { return this.data.pictures[this.at.picture]; }
    get person() { return this.picture.people[this.at.person]; }
    get stages() { return this.person ? this.person.stages : []; }

    find(name) { return this.root.querySelector("." + name); }

    build() {
      const strip = this.find("pictures");
      this.data.pictures.forEach((picture, i) => {
        const image = document.createElement("img");
        image.src = picture.source;
        image.alt = picture.title;
        button(strip, image, () => this.choosePicture(i));
      });
      strip.hidden = this.data.pictures.length < 2;
    }

    listen() {
      this.root.addEventListener("keydown", event => this.key(event));
      for (const name of ["with-map", "with-joints"]) {
        this.find(name).addEventListener("change", () => this.show());
      }
      let start = null;
      this.canvas.addEventListener("pointerdown", event => { start = event; });
      this.canvas.addEventListener("pointerup", event => {
        const moved = start ? event.clientX - start.clientX : 0;
        if (Math.abs(moved) > SWIPE) this.move("stage", moved < 0 ? 1 : -1);
        else if (start) this.pick(event);
        start = null;
      });
      this.canvas.addEventListener("pointercancel", () => { start = null; });
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "checkbox") return;
      const steps = {
        ArrowRight: ["stage", 1], ArrowLeft: ["stage", -1],
        ArrowDown: ["part", 1], ArrowUp: ["part", -1],
        p: ["person", 1], P: ["person", -1], n: ["picture", 1], N: ["picture", -1],
      };
      const switches = { m: "with-map", s: "with-joints" };
      if (event.key in steps) this.move(...steps[event.key]);
      else if (event.key in switches) {
        const box = this.find(switches[event.key]);
        box.checked = !box.checked;
        this.show();
      } else return;
      event.preventDefault();
    }

    count(what) {
      return {
        picture: this.data.pictures.length,
        person: this.picture.people.length,
        part: this.data.parts.length,
        stage: this.stages.length,
      }[what];
    }

    // One step on; stages end at the ends, everything else goes round.
    move(what, by) {
      const count = this.count(what);
      if (!count) return;
      const next = this.at[what] + by;
      const value = what === "stage" ? Math.max(0, Math.min(count - 1, next)) : (next + count) % count;
      if (what === "picture") this.choosePicture(value);
      else if (what === "person") this.choosePerson(value);
      else {
        this.at[what] = value;
        this.show();
      }
    }

    // A touch on the picture chooses the part that is nearest.
    pick(event) {
      if (!this.person) return;
      const box = this.canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) * this.canvas.width / box.width;
      const y = (event.clientY - box.top) * this.canvas.height / box.height;
      const near = this.person.joints.map(
        joint => joint ? Math.hypot(joint[0] - x, joint[1] - y) : Infinity);
      const best = near.indexOf(Math.min(...near));
      if (near[best] < this.canvas.width / 12) {
        this.at.part = best;
        this.show();
      }
    }

    choosePicture(number) {
      this.at.picture = number;
      const people = this.find("people");
      people.replaceChildren();
      this.picture.people.forEach((person, i) => {
        button(people, person.title, () => this.choosePerson(i));
      });
      people.hidden = this.picture.people.length < 2;
      this.choosePerson(0);
    }

    choosePerson(number) {
      this.at.person = number;
      this.at.stage = Math.max(0, this.stages.length - 1);
      const stages = this.find("stages"), parts = this.find("parts");
      stages.replaceChildren();
      parts.replaceChildren();
      this.stages.forEach((stage, i) => {
        button(stages, stage.title, () => { this.at.stage = i; this.show(); });
      });
      if (this.person) {
        this.data.parts.forEach((name, i) => {
          const made = button(parts, "", () => { this.at.part = i; this.show(); });
          made.innerHTML = '<span class="name"></span><span class="bar"><i></i></span><span class="score"></span>';
          made.querySelector(".name").textContent = name;
        });
      }
      this.show();
    }

    press(name, chosen) {
      [...this.find(name).children].forEach((one, i) => {
        one.setAttribute("aria-pressed", String(i === chosen));
      });
    }

    show() {
      const { picture, person, part, stage } = this.at;
      this.press("pictures", picture);
      this.press("people", person);
      this.press("stages", stage);
      this.press("parts", part);
      const caption = this.root.querySelector("figcaption");
      if (this.person) {
        const now = this.stages[stage];
        [...this.find("parts").children].forEach((one, i) => {
          const best = now.best[i];
          one.querySelector(".score").textContent = best.toFixed(2);
          one.querySelector("i").style.width = `${Math.max(0, Math.min(1, best)) * 100}%`;
        });
        const name = this.data.parts[part];
        const score = part in this.person.scores ? `, predicted with ${this.person.scores[part].toFixed(2)}` : "";
        caption.textContent = `${this.picture.title}, ${this.person.title}: ${name} after ${now.title}; ` +
          `highest belief ${now.best[part].toFixed(2)}${score}.`;
      } else {
        caption.textContent = `${this.picture.title}: no person found.`;
      }
      this.canvas.setAttribute("aria-label", caption.textContent);
      this.draw();
    }

    image(source) {
      if (!this.images.has(source)) this.images.set(source, load(source));
      return this.images.get(source);
    }

    async draw() {
      const turn = ++this.drawing; // a slow picture must not be drawn over a later choice
      const stage = this.stages[this.at.stage];
      const [photo, maps] = await Promise.all([
        this.image(this.picture.source), stage ? this.image(stage.source) : null,
      ]);
      if (turn !== this.drawing) return;
      this.canvas.width = photo.naturalWidth;
      this.canvas.height = photo.naturalHeight;
      const pen = this.canvas.getContext("2d");
      pen.drawImage(photo, 0, 0);
      if (stage && this.find("with-map").checked) this.drawMap(pen, maps);
      if (this.person && this.find("with-joints").checked) this.drawJoints(pen);
      if (this.person) this.drawPart(pen);
      this.canvas.dataset.shown = Object.values(this.at).join("/");
    }

    // The part's map: one of many below each other in the stage's picture.
    drawMap(pen, maps) {
      const height = maps.naturalHeight / this.data.parts.length, width = maps.naturalWidth;
      const own = document.createElement("canvas");
      own.width = width;
      own.height = height;
      const brush = own.getContext("2d", { willReadFrequently: true });
      brush.drawImage(maps, 0, -this.at.part * height);
      const pixels = brush.getImageData(0, 0, width, height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const byte = 4 * pixels.data[i];
        pixels.data.set(PAINT.subarray(byte, byte + 4), i);
      }
      brush.putImageData(pixels, 0, 0);
      pen.imageSmoothingEnabled = true;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(own, 0, 0, this.canvas.width, this.canvas.height);
    }

    drawJoints(pen) {
      const size = Math.max(this.canvas.width, this.canvas.height) / 250;
      pen.lineCap = "round";
      const joints = this.person.joints; // null where one is hidden
      for (const [a, b, colour, width] of this.data.lines) {
        if (!joints[a] || !joints[b]) continue;
        pen.strokeStyle = colour;
        pen.lineWidth = width * size;
        pen.beginPath();
        pen.moveTo(...joints[a]);
        pen.lineTo(...joints[b]);
        pen.stroke();
      }
      for (const [x, y] of joints.filter(Boolean)) {
        pen.beginPath();
        pen.arc(x, y, 1.4 * size, 0, 2 * Math.PI);
        pen.fillStyle = "#fff";
        pen.fill();
      }
    }

    // A ring where the chosen part was predicted.
    drawPart(pen) {
      const joint = this.person.joints[this.at.part];
      if (!joint) return; // the background has no place, and joints may be hidden
      const size = Math.max(this.canvas.width, this.canvas.height) / 250;
      for (const [width, ink] of [[2.4 * size, "#000"], [1.2 * size, "#fff"]]) {
        pen.beginPath();
        pen.arc(...joint, 4.5 * size, 0, 2 * Math.PI);
        pen.lineWidth = width;
        pen.strokeStyle = ink;
        pen.stroke();
      }
    }
  }

  for (const root of document.querySelectorAll(".pose-viewer")) root.viewer = new Viewer(root);
  // where nothing else has the focus, the keys work at once
  const first = document.querySelector(".pose-viewer");
  if (first && document.querySelectorAll(".pose-viewer").length === 1 && first.dataset.keys === "page") {
    document.addEventListener("keydown", event => {
      if (!first.contains(event.target)) first.viewer.key(event);
    });
  }
})();
