"""Vision: an image encoder, how it joins a language model, and how images are read."""
