"""Sources to float models; heads to detections."""
