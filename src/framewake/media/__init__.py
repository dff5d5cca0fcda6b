"""Pictures in, clips out."""
