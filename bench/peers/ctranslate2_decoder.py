"""CTranslate2's decoding as a peer of `strobe bench nmt`: the same weights, sentences and search, in fp32."""

import tempfile

import ctranslate2
import torch
from ctranslate2.specs import TransformerSpec

from workload import parse, serve

LONGEST = 256  # tokens of a translation that ends by itself


def set_parts(spec, weights, name, parts=("weight", "bias")):
    for target, part in zip(parts, ("weight", "bias")):
        setattr(spec, target, weights[f"{name}.{part}"].numpy())


def set_norm(spec, weights, name):
    set_parts(spec, weights, name, ("gamma", "beta"))


def set_layer(spec, weights, name):
    for i, part in enumerate(("qkv", "out")):
        set_parts(spec.self_attention.linear[i], weights, f"{name}.self_attention.{part}")
    set_norm(spec.self_attention.layer_norm, weights, f"{name}.self_attention_norm")
    if hasattr(spec, "attention"):
        for i, part in enumerate(("q", "kv", "out")):
            set_parts(spec.attention.linear[i], weights, f"{name}.cross_attention.{part}")
        set_norm(spec.attention.layer_norm, weights, f"{name}.cross_attention_norm")
    set_norm(spec.ffn.layer_norm, weights, f"{name}.feed_forward_norm")
    set_parts(spec.ffn.linear_0, weights, f"{name}.feed_forward.hidden")
    set_parts(spec.ffn.linear_1, weights, f"{name}.feed_forward.out")


def tokens(count, bos, eos):
    """CTranslate2 takes words: its name of each id."""
    names = [f"t{i}" for i in range(count)]
    names[bos], names[eos] = "<s>", "</s>"
    return names


def convert(workload, folder):
    config, weights = workload["config"], workload["model"]
    spec = TransformerSpec.from_config((config["encoder_layers"], config["decoder_layers"]), config["num_heads"])
    for name, side in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        set_norm(side.layer_norm, weights, f"{name}.norm")
        side.position_encodings.encodings = workload["positions"].numpy()
        for i, layer in enumerate(side.layer):
            set_layer(layer, weights, f"{name}.layers.{i}")
    spec.encoder.embeddings[0].weight = weights["encoder.embedding.tokens.weight"].numpy()
    spec.decoder.embeddings.weight = weights["decoder.embedding.tokens.weight"].numpy()
    set_parts(spec.decoder.projection, weights, "generator")
    spec.config.layer_norm_epsilon = workload["norm_eps"]
    names = [tokens(config[f"{side}_vocabulary"], workload["bos"], workload["eos"]) for side in ("source", "target")]
    spec.config.unk_token = names[0][workload["unk"]]
    spec.register_source_vocabulary(names[0])
    spec.register_target_vocabulary(names[1])
    spec.validate()
    spec.optimize()
    spec.save(folder)
    return names


class Decoder:
    def __init__(self, workload, device, threads):
        with tempfile.TemporaryDirectory() as folder:
            source, target = convert(workload, folder)
            self.translator = ctranslate2.Translator(
                folder, device=device, compute_type="float32", inter_threads=1, intra_threads=threads)
        self.ids = {name: i for i, name in enumerate(target)}
        self.cases = [
            {"limit": case["max_length"] or LONGEST,
             "batches": [self.words(batch["source"], batch["source_lengths"], source) for batch in case["batches"]]}
            for case in workload["decode"]]
        self.beam = workload["beam"]

    @staticmethod
    def words(ids, lengths, names):
        return [[names[i] for i in row[:n]] for row, n in zip(ids.tolist(), lengths.tolist())]

    def translate(self, batch, case, scores):
        return self.translator.translate_batch(
            batch, beam_size=self.beam, max_decoding_length=case["limit"], length_penalty=0, max_input_length=0,
            return_scores=scores, return_end_token=True)

    def decode(self, case):
        """How many tokens, the ends of sentences included."""
        chosen = self.cases[case]
        results = [self.translate(batch, chosen, scores=False) for batch in chosen["batches"]]
        return {"tokens": sum(len(result.hypotheses[0]) for batch in results for result in batch)}

    def translations(self, case):
        chosen = self.cases[case]
        results = [result for batch in chosen["batches"] for result in self.translate(batch, chosen, scores=True)]
        return {"ids": [[self.ids[word] for word in result.hypotheses[0] if word != "</s>"] for result in results],
                "scores": [result.scores[0] for result in results]}


def main():
    arguments = parse()
    decoder = Decoder(torch.load(arguments.workload, weights_only=True), arguments.device, arguments.threads)
    serve({"ctranslate2": ctranslate2.__version__}, {"decode": decoder.decode, "translations": decoder.translations})


if __name__ == "__main__":
    main()
