import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { deflateRawSync } from "node:zlib";
import { fromCoco, toCoco } from "../../../../scoring/online/page/formats/coco.js";
import { freeName, matchByName, stem } from "../../../../scoring/online/page/formats/names.js";
import { decodePng, encodePng } from "../../../../scoring/online/page/formats/png.js";
import { fromPngMasks, toPngMasks } from "../../../../scoring/online/page/formats/pngmasks.js";
import { fromYolo, toYolo } from "../../../../scoring/online/page/formats/yolo.js";
import { crc32, unzip, zip } from "../../../../scoring/online/page/formats/zip.js";
import { decodeRuns } from "../../../../scoring/online/page/masks/rle.js";
import { maskOf } from "../../../../scoring/online/page/masks/runs.js";
import * as projects from "../../../../scoring/online/page/project/project.js";

const CASES = Object.values(JSON.parse(readFileSync(process.env.CASES, "utf8"))).filter(({ rows }) => rows.join("").includes("1"));

/** A project with an image for each test mask, and two classes. */
function project() {
  let result = projects.addClass(projects.EMPTY, 'ring: "gold"').project;
  CASES.forEach(({ size, counts }, i) => {
    const id = `image-${i}`;
    result = { ...result, images: [...result.images, { id, name: `folder/image ${i}.jpg`, width: size[1], height: size[0], done: false, missing: false }] };
    result = projects.addObject(result, id, { id: `object-${i}`, classId: result.classes[i % 2].id, mask: maskOf(decodeRuns(counts, size), size) });
  });
  return result;
}

const summary = (labels) => labels.images.map(({ name, objects }) => [name, objects.map(({ label, mask }) => [label, mask.counts])]);
const expected = (source) => source.images.map(({ id, name }) => [name, projects.finished(source, id).map(({ classId, mask }) => [source.classes.find((other) => other.id === classId).name, mask.counts])]);

for (const polygons of [false, true]) {
  test(`COCO ${polygons ? "polygons" : "run lengths"} are read back as they were`, () => {
    const source = project(), labels = fromCoco(JSON.parse(JSON.stringify(toCoco(source, { polygons }))));
    assert.deepEqual(summary(labels), expected(source));
    assert.deepEqual(labels.classes, source.classes.map(({ name, colour }) => ({ name, colour })));
  });
}

test("uncompressed run lengths are read, and a box without a mask is left out", () => {
  const json = { images: [{ id: 7, file_name: "a.png", width: 3, height: 2 }], categories: [{ id: 3, name: "x" }], annotations: [{ id: 1, image_id: 7, category_id: 3, segmentation: { size: [2, 3], counts: [1, 2, 3] } }, { id: 2, image_id: 7, category_id: 3, segmentation: [] }] };
  assert.deepEqual(summary(fromCoco(json)), [["a.png", [["x", "123"]]]]);
});

test("what is wrong with a COCO file is said", () => {
  const json = { images: [], annotations: [{ id: 5, image_id: 1, category_id: 1 }], categories: [] };
  assert.throws(() => fromCoco(json), /Annotation 5 belongs to image 1, which is not in the list/);
  assert.throws(() => fromCoco([1]), /not in COCO's format/);
  const short = { images: [{ id: 1, file_name: "a", width: 3, height: 3 }], categories: [{ id: 1, name: "x" }], annotations: [{ id: 9, image_id: 1, category_id: 1, segmentation: { size: [3, 3], counts: "123" } }] };
  assert.throws(() => fromCoco(short), /Annotation 9 of a cannot be read.*cover 6 pixels/);
});

test("YOLO's files are read back as they were", () => {
  const source = project();
  const files = toYolo(source).map(({ name, data }) => ({ name, text: data }));
  assert.deepEqual(files.slice(0, 2).map(({ name }) => name), ["data.yaml", "labels/folder/image 0.txt"]);
  const { labels, missing } = fromYolo(files, source.images);
  assert.deepEqual(summary(labels), expected(source));
  assert.deepEqual(labels.classes.map(({ name }) => name), source.classes.map(({ name }) => name));
  assert.deepEqual(missing, []);
});

test("YOLO's boxes are read as rectangles, and other spellings of class names are understood", () => {
  const images = [{ name: "a.jpg", width: 20, height: 10 }];
  const { labels, missing } = fromYolo([{ name: "labels/a.txt", text: "1 0.5 0.5 0.5 0.4\n" }, { name: "labels/b.txt", text: "" }, { name: "data.yaml", text: "names: ['cat', 'dog']\n" }], images);
  assert.deepEqual(labels.images[0].objects.map(({ label, mask }) => [label, mask.bbox]), [["dog", [5, 3, 10, 4]]]);
  assert.deepEqual(missing, ["labels/b.txt"]);
  assert.throws(() => fromYolo([{ name: "a.txt", text: "0 0.5\n" }], images), /Line 1 of a.txt is not a class number/);
});

test("PNG masks are read back as they were", async () => {
  const source = project();
  const files = (await toPngMasks(source)).map(({ name, data }) => ({ name, data: data instanceof Blob ? data : new Blob([data]) }));
  const { labels, missing } = await fromPngMasks(files, source.images);
  assert.deepEqual(summary(labels), expected(source));
  assert.deepEqual(missing, []);
  const alone = await fromPngMasks(files.filter(({ name }) => !name.startsWith("objects")), source.images);
  assert.deepEqual(summary(alone.labels), expected(source));
});

test("PNG files keep 8 and 16 bits", async () => {
  for (const [bits, most] of [[8, 255], [16, 65535]]) {
    const values = Uint16Array.from({ length: 7 * 5 }, (_, i) => (i * 7919) % (most + 1));
    const read = await decodePng(await encodePng(values, 7, 5, bits));
    assert.deepEqual([read.width, read.height, [...read.values]], [7, 5, [...values]]);
  }
  await assert.rejects(decodePng(new Blob(["no image, but long enough for its header"])), /not a PNG/);
});

test("archives are read back, also with compression", async () => {
  const files = [{ name: "ä/one.txt", data: "one\n" }, { name: "two.bin", data: Uint8Array.of(1, 2, 3) }];
  const archive = await zip(files);
  const read = await unzip(archive);
  assert.deepEqual(read.map(({ name }) => name), ["ä/one.txt", "two.bin"]);
  assert.equal(await read[0].data.text(), "one\n");
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  const packed = deflateRawSync("a".repeat(100)), head = Buffer.alloc(30), entry = Buffer.alloc(46), end = Buffer.alloc(22);
  head.writeUInt16LE(1, 26);
  entry.writeUInt16LE(8, 10), entry.writeUInt32LE(packed.length, 20), entry.writeUInt16LE(1, 28);
  end.writeUInt32LE(0x06054b50), end.writeUInt16LE(1, 10), end.writeUInt32LE(47, 12), end.writeUInt32LE(31 + packed.length, 16);
  const [only] = await unzip(new Blob([head, "x", packed, entry, "x", end]));
  assert.equal(await only.data.text(), "a".repeat(100));
  await assert.rejects(unzip(new Blob(["no archive"])), /not a ZIP archive/);
});

const named = (...names) => names.map((name) => ({ name }));
const matched = (images, names, key) => names.map((name) => matchByName(images, names, key).get(name)?.name);

test("labels find their image by path, by the end of the path, or by a name that is unique", () => {
  const images = named("a/1.jpg", "b/1.jpg", "b/2.jpg");
  for (const [name, image] of [["b/1.jpg", "b/1.jpg"], ["data/b/1.jpg", "b/1.jpg"], ["1.jpg", undefined], ["2.jpg", "b/2.jpg"], ["x/2.jpg", "b/2.jpg"], ["3.jpg", undefined]]) {
    assert.deepEqual(matched(images, [name]), [image]);
  }
  assert.deepEqual(matched(images, ["x/2.txt"], stem), ["b/2.jpg"]);
  assert.equal(freeName("a.jpg", new Set(["a.jpg", "a (2).jpg"])), "a (3).jpg");
});

test("an image belongs to one name only", () => {
  assert.deepEqual(matched(named("a/1.jpg"), ["a/1.jpg", "b/1.jpg", "1.jpg"]), ["a/1.jpg", undefined, undefined]);
  assert.deepEqual(matched(named("1.jpg"), ["a/1.jpg", "b/1.jpg"]), [undefined, undefined]);
  assert.deepEqual(matched(named("1.jpg", "1.png"), ["1.txt"], stem), [undefined]);
  assert.deepEqual(matched([{ name: "a/1.jpg", missing: true }], ["b/1.jpg"]), [undefined]);
  assert.deepEqual(matched([{ name: "a/1.jpg", missing: true }], ["1.jpg"]), ["a/1.jpg"]);
});

test("images that would have the same file of labels are named", async () => {
  const source = { ...projects.EMPTY, images: ["a.jpg", "b.jpg", "a.png"].map((name) => ({ id: name, name, width: 2, height: 2 })) };
  assert.throws(() => toYolo(source), /^Error: a\.jpg and a\.png would have the same file/);
  await assert.rejects(toPngMasks(source), /^Error: a\.jpg and a\.png would have the same file/);
  assert.equal(toCoco(source).images.length, 3);
});

test("archives of more than 65,535 files are refused", async () => {
  await assert.rejects(zip(Array(65536).fill({ name: "a", data: "" })), /would have 65,536 files, and a ZIP archive can have 65,535/);
  const locator = Buffer.alloc(20), end = Buffer.alloc(22);
  locator.writeUInt32LE(0x07064b50), end.writeUInt32LE(0x06054b50), end.writeUInt16LE(65535, 10);
  await assert.rejects(unzip(new Blob([locator, end])), /more than 65,535 files or 4 GB/);
});
