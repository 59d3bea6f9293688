"""Run a signature the way TF Serving does, in a session: FOLDER SIGNATURE INPUT.npy OUT.npz."""

import sys

import numpy as np
import tensorflow as tf

folder, requests, out = sys.argv[1:]
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def
    found = {}
    with np.load(requests, allow_pickle=True) as given:
        for key in given.files:
            signature = signatures[key.rpartition("_")[0]]
            (fed,) = signature.inputs.values()
            names = {alias: info.name for alias, info in signature.outputs.items()}
            for alias, value in session.run(names, {fed.name: given[key]}).items():
                found[f"{key}/{alias}"] = value
np.savez(out, **found)
