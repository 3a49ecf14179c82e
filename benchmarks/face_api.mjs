// Ages by @vladmandic/face-api on node and WebAssembly, on one thread, for benchmarks/peers.py:
//     node face_api.mjs FOLDER DETECTOR NAMES.json
// FOLDER is where npm installed @vladmandic/face-api, @tensorflow/tfjs, @tensorflow/tfjs-backend-wasm and sharp;
// DETECTOR is ssd or tiny. Prints JSON: CPU seconds, and the people of each photo.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, detector, names] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
const sharp = require("sharp");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");

wasm.setWasmPaths(join(folder, "node_modules/@tensorflow/tfjs-backend-wasm/dist/"));
wasm.setThreadsCount(1);
sharp.concurrency(1);
await tf.setBackend("wasm");
await tf.ready();

const models = join(folder, "node_modules/@vladmandic/face-api/model");
const network = detector === "ssd" ? faceapi.nets.ssdMobilenetv1 : faceapi.nets.tinyFaceDetector;
await network.loadFromDisk(models);
await faceapi.nets.ageGenderNet.loadFromDisk(models);
const options = detector === "ssd" ? new faceapi.SsdMobilenetv1Options() : new faceapi.TinyFaceDetectorOptions();

async function people(name) {
  const { data, info } = await sharp(name).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const image = tf.tensor3d(new Uint8Array(data), [info.height, info.width, 3], "int32");
  const found = await faceapi.detectAllFaces(image, options).withAgeAndGender();
  image.dispose();
  return found.map(({ detection: { box }, age, gender }) => ({
    face: [box.left, box.top, box.right, box.bottom],
    age,
    gender: gender === "male" ? "M" : "F",
  }));
}

const photos = JSON.parse(readFileSync(names));
await people(photos[0]);
const before = process.cpuUsage();
const found = [];
for (const name of photos) found.push(await people(name));
const { user, system } = process.cpuUsage(before);
console.log(JSON.stringify({ seconds: (user + system) / 1e6, found }));
