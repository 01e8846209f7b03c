"""How the pocket model's weights are made: film set -> autoencoder -> CLIP -> denoiser -> card."""
