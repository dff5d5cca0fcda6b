"""framewake: one image and one prompt into a video with HunyuanVideo-I2V."""

__version__ = "0.1.0"
