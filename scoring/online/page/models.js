// The models that the endpoint lists at /models. Pure.

/** Return the listed model that answers to a name, or undefined. */
export const modelOf = (models, name) =>
  models.find((model) => model.name === name || model.names.includes(name) || model.stands_in_for.includes(name));

/** Return whether a listed model is one that comes with the endpoint for trying it out. */
export const isStarter = (model) =>
  Boolean(model?.starter || /(^|[\\/])checkpoints[\\/]sam2?-tiny[\\/]?$/.test(model?.origin?.source ?? ""));

/** Return what to choose from: {name, text, chosen}, each name that is served. */
export function choices(models) {
  const starter = (model) => (isStarter(model) ? ", starter" : "");
  return [
    ...models.flatMap((model) =>
      model.names.map((name) => ({ name, text: isStarter(model) ? `${name} (starter)` : name, chosen: model.default && name === model.name })),
    ),
    ...models.flatMap((model) =>
      model.stands_in_for.map((name) => ({ name, text: `${name} (answered by ${model.name}${starter(model)})`, chosen: false })),
    ),
  ];
}

/** Return a sentence about the model of a name if it is a starter, else "". */
export function starterNote(models, name) {
  const model = modelOf(models, name);
  if (!isStarter(model)) return "";
  return `${model.name} is a starter model, for trying the endpoint out: its masks of photographs are rough. Serve a full SAM for real work.`;
}

/** Return a sentence about the model that answered. */
export const answeredBy = (models, name) => `Answered by ${name}${isStarter(modelOf(models, name)) ? " (starter)" : ""}.`;
