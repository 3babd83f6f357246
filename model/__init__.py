"""All that travels inside the MLflow model: a row with an image and prompts goes in, masks with scores come out.

What the package stands on is imported here, with the garbage collector at rest: among half a million new objects that
stay it would look again and again, find nothing, and take a fifth of a start. Afterwards it passes them by for good.
"""

import gc

collecting = gc.isenabled()
gc.collect()  # what is garbage by now would never be found
gc.disable()
try:
    import torch  # noqa: F401
    import transformers.modeling_utils  # noqa: F401

    gc.freeze()
finally:
    if collecting:
        gc.enable()
