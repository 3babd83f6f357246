// Read a response of one JSON value per line while it arrives. Pure.

/** Yield the values of a stream of bytes with one JSON value per line. Throws an Error if a line is not JSON. */
export async function* linesOf(stream) {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }))).split("\n");
      rest = done ? "" : lines.pop();
      for (const line of lines) if (line) yield JSON.parse(line);
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // the reader of the lines has stopped, so the endpoint can stop too
  }
}
