"""Functions in Swift for Apple's systems: one image in, the outputs or what Vision finds out."""

from modelexport.reading.facts import CLASS_LABEL, CLASS_PROBABILITIES, Facts


def write(facts: Facts) -> str:
    """Return functions that open a file and run it on an image."""
    folder = facts.file.removesuffix(".zip")
    named = {"file": facts.file, "folder": folder, "name": folder.removesuffix(".mlpackage"), "input": facts.image.name}
    names = [output.name for output in facts.outputs]
    if facts.for_vision:
        found = _CLASSES if CLASS_LABEL in names else _OBJECTS
        opened = _OPEN.format(imports="import CoreML\nimport Foundation\nimport Vision", **named)
        return f"{opened}\n{_VISION.format(crop=_CROP[facts.resize], **found)}"
    values = {name: _VALUES.get(name, "multiArrayValue!.shape") for name in names}
    shown = [f'    print("{name}", outputs.featureValue(for: "{name}")!.{value})' for name, value in values.items()]
    (height, width), pixels = facts.size, facts.image.type == "image"
    fit = _FIT[facts.resize].format(width=width, height=height)
    parts = (
        _OPEN.format(imports=_IMAGE_IMPORTS if pixels else _ARRAY_IMPORTS, **named),
        _PREDICT.format(outputs="\n".join(shown), **named),
        pixel_buffer(facts) if pixels else multi_array(facts),
        _DRAW.format(width=width, height=height, fit=fit, alpha="114 / 255" if facts.channels in (2, 4) else "1"),
    )
    return "\n".join(parts)


def pixel_buffer(facts: Facts) -> str:
    """Return the function that makes an input of pixels."""
    (height, width), grey = facts.size, facts.channels == 1
    return _PIXEL_BUFFER.format(
        width=width,
        height=height,
        format="OneComponent8" if grey else "32BGRA",
        space="Gray" if grey else "RGB",
        layout="CGImageAlphaInfo.none.rawValue"
        if grey
        else "CGImageAlphaInfo.noneSkipFirst.rawValue | CGBitmapInfo.byteOrder32Little.rawValue",
    )


def multi_array(facts: Facts) -> str:
    """Return the function that makes an input of numbers."""
    height, width = facts.size
    mean, std = (", ".join(f"{value:.9g}" for value in values) for values in (facts.mean, facts.std))
    return _MULTI_ARRAY.format(
        width=width,
        height=height,
        channels=facts.channels,
        shape=list(facts.shape),
        alpha="premultipliedLast" if facts.channels in (2, 4) else "noneSkipLast",
        colours=_COLOURS[facts.channels],
        constants=f"    let mean: [Float] = [{mean}], std: [Float] = [{std}]\n" if facts.normalises else "",
        place=f"(c * {height} + y) * {width} + x",
        value="(pixel / 255 - mean[c]) / std[c]" if facts.normalises else "pixel / 255" if facts.mean else "pixel",
        copies="" if facts.batch == 1 else _COPIES.format(batch=facts.batch),
    )


_ARRAY_IMPORTS = "import CoreGraphics\nimport CoreML\nimport Foundation"
_IMAGE_IMPORTS = "import CoreGraphics\nimport CoreML\nimport CoreVideo\nimport Foundation"
_VALUES = {CLASS_LABEL: "stringValue", CLASS_PROBABILITIES: "dictionaryValue"}
_CROP = {"letterbox": "scaleFit", "centre_crop": "centerCrop", "stretch": "scaleFill"}
_PLAIN = "Float(bytes[i]), Float(bytes[i + 1]), Float(bytes[i + 2])"
_GREY = "0.299 * Float(bytes[i]) + 0.587 * Float(bytes[i + 1]) + 0.114 * Float(bytes[i + 2])"
_OPACITY = "max(Float(bytes[i + 3]) / 255, 1 / 255)"
_COLOURS = {
    1: _GREY,
    2: f"({_GREY}) / {_OPACITY}, Float(bytes[i + 3])",
    3: _PLAIN,
    4: ", ".join(f"Float(bytes[i + {n}]) / {_OPACITY}" for n in range(3)) + ", Float(bytes[i + 3])",
}
_FACTOR = """\
    let factor = {}({{width}} / CGFloat(photo.width), {{height}} / CGFloat(photo.height))
    let size = CGSize(width: CGFloat(photo.width) * factor, height: CGFloat(photo.height) * factor)
    let origin = CGPoint(x: ({{width}} - size.width) / 2, y: ({{height}} - size.height) / 2)
    context.draw(photo, in: CGRect(origin: origin, size: size))"""
_FIT = {
    "letterbox": _FACTOR.format("min"),
    "centre_crop": _FACTOR.format("max"),
    "stretch": "    context.draw(photo, in: CGRect(x: 0, y: 0, width: {width}, height: {height}))",
}
_OPEN = """\
// Runs {file} on an image. Unzip it and add
// {folder} to the app, for which Xcode compiles it.
{imports}

/// Opens the file; do it once.
func load() throws -> MLModel {{
    let file = Bundle.main.url(forResource: "{name}", withExtension: "mlmodelc")!
    return try MLModel(contentsOf: file)
}}
"""
_VISION = """\
/// Prints what the file finds. Vision scales the photo; it takes a CVPixelBuffer of a camera as well.
func predict(_ model: MLModel, _ photo: CGImage) throws {{
    let request = VNCoreMLRequest(model: try VNCoreMLModel(for: model))
    request.imageCropAndScaleOption = .{crop}
    try VNImageRequestHandler(cgImage: photo).perform([request])
    for found in request.results as? [{kind}] ?? [] {{
        {show}
    }}
}}
"""
_CLASSES = {
    "kind": "VNClassificationObservation",
    "show": "print(found.identifier, found.confidence)  // the most probable class comes first",
}
_OBJECTS = {
    "kind": "VNRecognizedObjectObservation",
    "show": "// The box is of the photo, 0 to 1, and its origin is the lower left corner.\n"
    "        print(found.labels[0].identifier, found.confidence, found.boundingBox)",
}
_PREDICT = """\
/// Prints the outputs of the file for a photo.
func predict(_ model: MLModel, _ photo: CGImage) throws {{
    let input = try MLDictionaryFeatureProvider(dictionary: ["{input}": prepare(photo)])
    let outputs = try model.prediction(from: input)
{outputs}
}}
"""
_PIXEL_BUFFER = """\
/// Returns the input of the file: an image of {width} x {height} pixels.
func prepare(_ photo: CGImage) -> MLFeatureValue {{
    var buffer: CVPixelBuffer?
    CVPixelBufferCreate(kCFAllocatorDefault, {width}, {height}, kCVPixelFormatType_{format}, nil, &buffer)
    let pixels = buffer!
    CVPixelBufferLockBaseAddress(pixels, [])
    let context = CGContext(
        data: CVPixelBufferGetBaseAddress(pixels), width: {width}, height: {height}, bitsPerComponent: 8,
        bytesPerRow: CVPixelBufferGetBytesPerRow(pixels), space: CGColorSpaceCreateDevice{space}(),
        bitmapInfo: {layout})!
    draw(photo, in: context)
    CVPixelBufferUnlockBaseAddress(pixels, [])
    return MLFeatureValue(pixelBuffer: pixels)
}}
"""
_MULTI_ARRAY = """\
/// Returns the input of the file: {shape}, float32.
func prepare(_ photo: CGImage) -> MLFeatureValue {{
    let context = CGContext(
        data: nil, width: {width}, height: {height}, bitsPerComponent: 8, bytesPerRow: 4 * {width},
        space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.{alpha}.rawValue)!
    draw(photo, in: context)
    let bytes = context.data!.assumingMemoryBound(to: UInt8.self)
{constants}    var values = [Float](repeating: 0, count: {channels} * {height} * {width})
    for y in 0..<{height} {{
        for x in 0..<{width} {{
            let i = 4 * (y * {width} + x)
            let pixels: [Float] = [{colours}]
            for (c, pixel) in pixels.enumerated() {{
                values[{place}] = {value}
            }}
        }}
    }}
{copies}    return MLFeatureValue(multiArray: MLMultiArray(MLShapedArray<Float>(scalars: values, shape: {shape})))
}}
"""
_COPIES = """\
    values = [Float](repeatElement(values, count: {batch}).joined())  // the file takes {batch} images
"""
_DRAW = """\
func draw(_ photo: CGImage, in context: CGContext) {{
    context.setFillColor(red: 114 / 255, green: 114 / 255, blue: 114 / 255, alpha: {alpha})
    context.fill(CGRect(x: 0, y: 0, width: {width}, height: {height}))
    context.interpolationQuality = .high
{fit}
}}
"""
