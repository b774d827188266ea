"""What runs a trained network: OpenVINO or Keras, behind one contract."""
