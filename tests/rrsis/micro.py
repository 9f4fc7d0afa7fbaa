"""Overrides of the preset tiny that make a run a matter of seconds."""

MICRO = {
    "image_size": 64,
    "backbone": "swin_tiny_patch4_window7_224",
    "decoder_dim": 16,
    "decoder_heads": 2,
    "decoder_ffn_dim": 16,
    "num_queries": 2,
    "bsc_num_heads": [2, 2, 2, 2],
    "bsc_embed_dims": [8, 8, 8, 8],
    "backbone_kwargs": {
        "img_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "drop_path_rate": 0.0,
    },
    "text_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
