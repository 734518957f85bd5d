"""Programs in C++17: one image in (PAM, which ImageMagick and FFmpeg write), shapes and first values of outputs out."""

from modelexport.matrix.support import Format
from modelexport.reading.facts import Facts

TYPES = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t", "int32": "int32_t", "int64": "int64_t"}


def write(facts: Facts) -> str:
    """Return a program that opens a file and runs it on an image."""
    includes, run = _RUN[facts.format]
    names, types = (list(values) for values in zip(*((o.name, TYPES[o.type]) for o in facts.outputs), strict=True))
    body = run.format(
        file=facts.file,
        input=facts.image.name,
        type=TYPES[facts.image.type],
        shape=", ".join(map(str, facts.shape)),
        names=", ".join(f'"{name}"' for name in names),
        count=len(names),
        show="\n".join(
            _SHOW[facts.format].format(index=index, name=name, type=kind)
            for index, (name, kind) in enumerate(zip(names, types, strict=True))
        ),
    )
    return f"{includes.format(file=facts.file)}{_INCLUDES}\n{prepare(facts)}\n{body}"


def prepare(facts: Facts) -> str:
    """Return the functions that make the input of the file from an image of any size."""
    (height, width), kind = facts.size, TYPES[facts.image.type]
    plane = "(y * WIDTH + x) * CHANNELS + c" if facts.channels_last else "(c * HEIGHT + y) * WIDTH + x"
    mean, std = (", ".join(f"{value:.9g}f" for value in values) for values in (facts.mean, facts.std))
    constants = f"constexpr int WIDTH = {width}, HEIGHT = {height}, CHANNELS = {facts.channels};"
    value = "pixel"
    if facts.mean:
        value = "pixel / 255"
    if facts.normalises:
        constants += f"\nconstexpr float MEAN[] = {{{mean}}}, STD[] = {{{std}}};"
        value = "(pixel / 255 - MEAN[c]) / STD[c]"
    if facts.scale:
        scale, zero_point = facts.scale
        value = f"std::clamp(std::nearbyint({value} / {scale!r}f) + {zero_point}, -128.0f, 127.0f)"
    value = value if kind == "float" else f"static_cast<{kind}>({value})"
    copies = "" if facts.batch == 1 else _COPIES.format(batch=facts.batch)
    size = {"shape": list(facts.image.shape), "type": kind, "place": plane, "value": value, "copies": copies}
    return f"{constants}\n{_READ}\n{_PREPARE.format(fit=_FIT[facts.resize], **size)}"


_INCLUDES = """\
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>
"""
_READ = """\

struct Image {
    int width = 0, height = 0;
    std::vector<float> pixels;  // (height, width, CHANNELS), 0 to 255
};

Image read(const char* path) {
    std::ifstream file(path, std::ios::binary);
    Image image;
    std::string word;
    int depth = 0;
    while (file >> word && word != "ENDHDR") {
        if (word == "WIDTH") file >> image.width;
        if (word == "HEIGHT") file >> image.height;
        if (word == "DEPTH") file >> depth;
    }
    if (depth != CHANNELS) throw std::runtime_error(std::string(path) + " is no PAM image of as many channels");
    file.get();
    std::string bytes(size_t(image.width) * image.height * CHANNELS, '\\0');
    file.read(bytes.data(), bytes.size());
    for (unsigned char byte : bytes) image.pixels.push_back(byte);
    return image;
}

// Scales the width by a triangle filter, as Pillow does, and swaps the axes: calling it twice scales an image.
Image scale(const Image& image, int width) {
    Image scaled{image.height, width, std::vector<float>(size_t(width) * image.height * CHANNELS)};
    const double step = double(image.width) / width, reach = std::max(step, 1.0);
    for (int x = 0; x < width; ++x) {
        const double middle = (x + 0.5) * step;
        const int first = std::max(0, int(middle - reach + 0.5));
        const int end = std::min(image.width, int(middle + reach + 0.5));
        for (int y = 0; y < image.height; ++y)
            for (int c = 0; c < CHANNELS; ++c) {
                double sum = 0, weights = 0;
                for (int i = first; i < end; ++i) {
                    const double weight = std::max(0.0, 1 - std::abs(i + 0.5 - middle) / reach);
                    sum += weight * image.pixels[(size_t(y) * image.width + i) * CHANNELS + c];
                    weights += weight;
                }
                scaled.pixels[(size_t(x) * image.height + y) * CHANNELS + c] = std::nearbyint(sum / weights);
            }
    }
    return scaled;
}
"""
_FIT = {
    "letterbox": """\
    const double factor = std::min(double(HEIGHT) / image.height, double(WIDTH) / image.width);
    const int width = std::max(1, int(std::nearbyint(image.width * factor)));
    const int height = std::max(1, int(std::nearbyint(image.height * factor)));
    const int left = std::nearbyint((WIDTH - width) / 2.0 - 0.1);
    const int top = std::nearbyint((HEIGHT - height) / 2.0 - 0.1);""",
    "centre_crop": """\
    const double factor = std::max(double(HEIGHT) / image.height, double(WIDTH) / image.width);
    const int width = std::max(WIDTH, int(image.width * factor));
    const int height = std::max(HEIGHT, int(image.height * factor));
    const int left = -std::nearbyint((width - WIDTH) / 2.0), top = -std::nearbyint((height - HEIGHT) / 2.0);""",
    "stretch": "    const int width = WIDTH, height = HEIGHT, left = 0, top = 0;",
}
_PREPARE = """\
// Returns the input of the file: {shape}, {type}.
std::vector<{type}> prepare(const Image& image) {{
{fit}
    const Image scaled = scale(scale(image, width), height);
    std::vector<{type}> values(size_t(CHANNELS) * HEIGHT * WIDTH);
    for (int y = 0; y < HEIGHT; ++y)
        for (int x = 0; x < WIDTH; ++x)
            for (int c = 0; c < CHANNELS; ++c) {{
                const int row = y - top, column = x - left;
                const bool inside = row >= 0 && row < height && column >= 0 && column < width;
                const float pixel = inside ? scaled.pixels[(size_t(row) * width + column) * CHANNELS + c] : 114;
                values[{place}] = {value};
            }}
{copies}    return values;
}}
"""
_COPIES = """\
    const size_t one = values.size();  // the file takes {batch} images
    values.resize({batch} * one);
    for (size_t i = one; i < values.size(); ++i) values[i] = values[i - one];
"""
_RUN = {
    Format.ONNX: (
        """\
// Runs {file} on an image, with ONNX Runtime:
//     g++ -std=c++17 program.cpp -lonnxruntime -o program && ./program photo.pam
#include <onnxruntime_cxx_api.h>

""",
        """\
int main(int count, char** arguments) {{
    if (count != 2) return 2;
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "program");
    Ort::Session session(environment, ORT_TSTR("{file}"), Ort::SessionOptions{{}});
    std::vector<{type}> values = prepare(read(arguments[1]));
    const std::array<int64_t, 4> shape{{{shape}}};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input =
        Ort::Value::CreateTensor<{type}>(memory, values.data(), values.size(), shape.data(), shape.size());
    const char* inputs[] = {{"{input}"}};
    const char* outputs[] = {{{names}}};
    auto results = session.Run(Ort::RunOptions{{nullptr}}, inputs, &input, 1, outputs, {count});
{show}
}}
""",
    ),
    Format.LITERT: (
        """\
// Runs {file} on an image, with the C++ SDK of LiteRT 2, whose headers need Clang:
//     ./program photo.pam
#include "litert/cc/litert_compiled_model.h"
#include "litert/cc/litert_environment.h"
#include "litert/cc/litert_tensor_buffer.h"

""",
        """\
int main(int count, char** arguments) {{
    if (count != 2) return 2;
    auto environment = litert::Environment::Create({{}});
    auto model = litert::CompiledModel::Create(*environment, "{file}", litert::HwAccelerators::kCpu);
    if (!model) return std::fprintf(stderr, "%s\\n", model.Error().Message().c_str()), 1;
    const std::vector<{type}> values = prepare(read(arguments[1]));
    litert::FlatHashMap<litert::StringView, litert::TensorBuffer> inputs, outputs;
    inputs["{input}"] = std::move(*model->CreateInputBuffer("{input}"));
    if (!inputs["{input}"].Write<{type}>(litert::Span<const {type}>(values.data(), values.size()))) return 1;
    for (const char* name : {{{names}}}) outputs[name] = std::move(*model->CreateOutputBuffer(name));
    if (!model->Run(inputs, outputs)) return 1;
{show}
}}
""",
    ),
}
_SHOW = {
    Format.ONNX: """\
    std::printf("{name}");
    for (auto size : results[{index}].GetTensorTypeAndShapeInfo().GetShape()) std::printf(" %d", int(size));
    const auto* output{index} = results[{index}].GetTensorData<{type}>();
    std::printf(": %g\\n", double(output{index}[0]));""",
    Format.LITERT: """\
    std::vector<{type}> output{index}(*outputs["{name}"].PackedSize() / sizeof({type}));
    if (!outputs["{name}"].Read<{type}>(litert::Span<{type}>(output{index}.data(), output{index}.size()))) return 1;
    std::printf("{name} %zu: %g\\n", output{index}.size(), double(output{index}[0]));""",
}
