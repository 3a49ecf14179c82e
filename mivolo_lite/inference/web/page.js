"use strict";

const [drop, file, message, photo, boxes, table, about] = ["drop", "file", "message", "photo", "boxes", "people", "about"]
  .map((id) => document.getElementById(id));
const image = photo.querySelector("img");
let latest = 0;
let megabytes = Infinity; // that the server takes

function say(text, isAlert = false) {
  message.textContent = text;
  message.classList.toggle("alert", isAlert);
}

function refuse(reason) {
  say(`Not estimated: ${reason}`, true);
}

function clear() {
  photo.hidden = table.hidden = true;
  boxes.replaceChildren();
  table.tBodies[0].replaceChildren();
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function middle(person) {
  const [left, , right] = person.face || person.body;
  return (left + right) / 2;
}

function drawBox(person, number, width, height) {
  const [x0, y0, x1, y1] = person.face || person.body;
  const box = element("div", "");
  box.className = y0 / height < 0.08 ? "box high" : "box";
  box.style.left = `${(100 * x0) / width}%`;
  box.style.top = `${(100 * y0) / height}%`;
  box.style.width = `${(100 * (x1 - x0)) / width}%`;
  box.style.height = `${(100 * (y1 - y0)) / height}%`;
  box.append(element("b", person.age === null ? `${number}` : `${number}: ${Math.round(person.age)}`));
  boxes.append(box);
}

function addRow(person, number) {
  const row = table.tBodies[0].insertRow();
  const years = (value) => value.toFixed(0);
  const others = Object.entries(person.tasks)
    .filter(([, answer]) => !Array.isArray(answer.value))
    .map(([name, answer]) => `${name} ${answer.value}`);
  const cells = [
    number,
    person.age === null ? "none" : person.age.toFixed(1),
    person.age_lower === null ? "" : `${years(person.age_lower)} to ${years(person.age_upper)}`,
    person.gender === null ? "" : `${person.gender} ${Math.round(100 * person.gender_probability)} %`,
    others.join(", "),
    person.flags.join(", "),
  ];
  for (const text of cells) row.append(element("td", text));
}

async function ask(files) {
  const mine = ++latest;
  clear();
  if (!files.length) {
    refuse("no file was dropped; drop a photo's file, or choose one");
    return;
  }
  const [chosen] = files;
  if (chosen.size > 1e6 * megabytes) {
    refuse(`the file is larger than ${megabytes} MB`); // before it is sent, which may take minutes
    return;
  }
  say("Estimating ...");
  let answer, status;
  try {
    const response = await fetch("predict", { method: "POST", body: chosen });
    answer = await response.json().catch(() => ({ detail: `a proxy answered ${response.status} ${response.statusText}` }));
    status = response.ok;
  } catch {
    [status, answer] = [false, { detail: "the server does not answer, or the file cannot be read" }];
  }
  if (mine !== latest) return;
  if (!status) {
    refuse(answer.detail);
    return;
  }
  image.onload = () => {
    photo.hidden = false;
    boxes.hidden = (image.naturalWidth > image.naturalHeight) !== (answer.width > answer.height);
    if (boxes.hidden) say(`${message.textContent} This browser shows the photo lying on its side, and so without boxes.`);
  };
  image.onerror = () => say(`${message.textContent} This browser cannot show the photo's format.`);
  image.src = URL.createObjectURL(chosen);
  const count = answer.people.length;
  const found = count ? `${count} ${count === 1 ? "person" : "people"} found.` : "Nobody found.";
  say(files.length === 1 ? found : `${found} Only ${chosen.name}, the first of ${files.length} files, was estimated; for many, use mivolo-lite predict.`);
  table.classList.toggle("ages-alone", answer.people.every((person) => !Object.keys(person.tasks).length));
  answer.people.sort((one, other) => middle(one) - middle(other)).forEach((person, index) => {
    drawBox(person, index + 1, answer.width, answer.height);
    addRow(person, index + 1);
  });
  table.hidden = !count;
}

file.addEventListener("change", () => {
  if (file.files.length) ask([...file.files]);
  file.value = "";  // the same file again is a new question
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") ask([...event.dataTransfer.files]);
  });
}

fetch("about").then((response) => response.json()).then((facts) => {
  megabytes = facts.megabytes;
  const level = facts.interval_level === null ? [] : [`Intervals are calibrated to hold ${Math.round(100 * facts.interval_level)} % of true ages.`];
  about.textContent = [`Model ${facts.model} with ${facts.method}.`, ...level, ...facts.notes.map((note) => `Note: ${note}.`)].join(" ");
});
