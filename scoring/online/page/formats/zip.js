// Write ZIP archives without compression, and read archives. Pure.

const MOST_FILES = 0xffff;
const MOST_BYTES = 0xffffffff;

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** Return the CRC-32 checksum of bytes. `parts` are arrays of bytes that follow each other. */
export function crc32(...parts) {
  let crc = -1;
  for (const bytes of parts) for (let i = 0; i < bytes.length; i++) crc = TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function record(signature, fields, ...rest) {
  const size = 4 + fields.reduce((sum, [bytes]) => sum + bytes, 0);
  const view = new DataView(new ArrayBuffer(size));
  view.setUint32(0, signature, true);
  let at = 4;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return [new Uint8Array(view.buffer), ...rest];
}

/**
 * Return a promise of a ZIP archive (a Blob). `files` is a list of {name, data}, where data is a Blob, text or bytes.
 *
 * Throws an Error if the archive would have more files or bytes than the plain ZIP format can count.
 */
export async function zip(files) {
  if (files.length > MOST_FILES) throw new Error(`The archive would have ${files.length.toLocaleString()} files, and a ZIP archive can have ${MOST_FILES.toLocaleString()}. Export as COCO without the images.`);
  const parts = [], directory = [];
  let offset = 0;
  for (const { name, data } of files) {
    const blob = data instanceof Blob ? data : new Blob([data]);
    const title = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, crc], [4, blob.size], [4, blob.size], [2, title.length], [2, 0]];
    parts.push(...record(0x04034b50, common, title), blob);
    directory.push(...record(0x02014b50, [[2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]], title));
    offset += 30 + title.length + blob.size;
    if (offset > MOST_BYTES) throw new Error("The archive would be larger than 4 GB. Export without the images, or fewer images.");
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record(0x06054b50, [[2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, ...end], { type: "application/zip" });
}

/** Return a promise of the files of a ZIP archive: a list of {name, data}, where data is a Blob. Folders are left out. */
export async function unzip(blob) {
  const tail = new DataView(await blob.slice(Math.max(0, blob.size - 65557)).arrayBuffer());
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== 0x06054b50) at--;
  if (at < 0) throw new Error("The file is not a ZIP archive, or its end is missing.");
  const count = tail.getUint16(at + 10, true), start = tail.getUint32(at + 16, true);
  const isExtended = at >= 20 && tail.getUint32(at - 20, true) === 0x07064b50; // the true numbers stand in a record of ZIP64
  if (isExtended && (count === MOST_FILES || start === MOST_BYTES)) throw new Error("The ZIP archive has more than 65,535 files or 4 GB, which this page cannot read. Pack it as several archives.");
  const view = new DataView(await blob.slice(start, start + tail.getUint32(at + 12, true)).arrayBuffer());
  const files = [];
  try {
    for (let i = 0, entry = 0; i < count; i++) {
      const [method, packed, names, extra, comment] = [view.getUint16(entry + 10, true), view.getUint32(entry + 20, true), view.getUint16(entry + 28, true), view.getUint16(entry + 30, true), view.getUint16(entry + 32, true)];
      const name = new TextDecoder().decode(new Uint8Array(view.buffer, entry + 46, names));
      const local = view.getUint32(entry + 42, true);
      if (!name.endsWith("/")) files.push({ name, data: await content(blob, local, packed, method, name) });
      entry += 46 + names + extra + comment;
    }
  } catch (error) {
    if (error instanceof RangeError) throw new Error("The ZIP archive is damaged.");
    throw error;
  }
  return files;
}

async function content(blob, local, packed, method, name) {
  const header = new DataView(await blob.slice(local, local + 30).arrayBuffer());
  const begin = local + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const data = blob.slice(begin, begin + packed);
  if (method === 0) return data;
  if (method !== 8) throw new Error(`The ZIP archive packs ${name} in a way that this page cannot read. Pack it as a plain ZIP archive.`);
  return new Response(data.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}
