// Interpret the list of models that the endpoint returns at /models. Pure.

/** Return the listed model that answers requests for a name, or undefined. */
export const modelOf = (models, name) =>
  models.find((model) => model.name === name || model.names.includes(name) || model.stands_in_for.includes(name));

const USUAL = { concept_thresh: 0.5, exemplar_thresh: 0.9 }; // thresholds of a model that is not loaded yet

/** Return the thresholds {concept_thresh, exemplar_thresh} that the model with this name uses. */
export const thresholdsOf = (models, name) => modelOf(models, name)?.thresholds ?? USUAL;

/** Return why the model with this name takes no text, or "" if it takes text or is not loaded yet. */
export function noTextNote(models, name) {
  const model = modelOf(models, name);
  if (!model?.capabilities || model.capabilities.text) return "";
  return `The model ${model.name} takes no text. To find more objects like one, select it and choose Similar.`;
}

/** Return whether a listed model is a starter: one of the small models that come with the endpoint, for trying it out. */
export const isStarter = (model) =>
  Boolean(model?.starter || /(^|[\\/])checkpoints[\\/]sam2?-tiny[\\/]?$/.test(model?.origin?.source ?? ""));

/** Return the options of the model menu, one for each name: {name, text, chosen}. `chosen` marks the default model. */
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

/** Return a note about a starter model, or "" if the model with this name is not a starter. */
export function starterNote(models, name) {
  const model = modelOf(models, name);
  if (!isStarter(model)) return "";
  return `${model.name} is a starter model for trying out the endpoint. Its masks of photographs are rough. For real work, serve a full SAM model.`;
}

/** Return a sentence that names the model that answered. */
export const answeredBy = (models, name) => `Answered by ${name}${isStarter(modelOf(models, name)) ? " (starter)" : ""}.`;
