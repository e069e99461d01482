"""What runs on the device: standard library, numpy, the runtime, OpenCV or Pillow; Python 3.9 and later."""
