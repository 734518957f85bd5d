"""What several architectures use: outputs, blocks of the YOLO networks, folding of batch normalisation."""
