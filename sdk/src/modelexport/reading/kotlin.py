"""Functions in Kotlin for Android: one bitmap in, the values of all outputs out."""

from modelexport.reading.facts import Facts

READERS = {"float32": "readFloat", "int32": "readInt", "int64": "readLong", "int8": "readInt8", "uint8": "readInt8"}
INPUTS = {
    "float32": ("FloatArray", "writeFloat"),
    "uint8": ("ByteArray", "writeInt8"),
    "int8": ("ByteArray", "writeInt8"),
}
"""For each type of input, its array and the method that writes it into a buffer. Bytes are written unchanged."""


def write(facts: Facts) -> str:
    """Return functions that open a file and run it on a bitmap."""
    (height, width), (array, writer) = facts.size, INPUTS[facts.image.type]
    outputs = "\n".join(
        f'        "{one.name}" to outputs.getValue("{one.name}").{READERS[one.type]}(),  // {list(one.shape)}'
        for one in facts.outputs
    )
    mean, std = (", ".join(f"{value:.9g}f" for value in values) for values in (facts.mean, facts.std))
    return _PROGRAM.format(
        file=facts.file,
        input=facts.image.name,
        names=", ".join(f'"{one.name}"' for one in facts.outputs),
        outputs=outputs,
        writer=writer,
        shape=list(facts.image.shape),
        type=facts.image.type,
        array=array,
        size=f"private const val WIDTH = {width}\nprivate const val HEIGHT = {height}\n"
        f"private const val CHANNELS = {facts.channels}",
        constants=f"private val MEAN = floatArrayOf({mean})\nprivate val STD = floatArrayOf({std})\n"
        if facts.normalises
        else "",
        fit=_FIT[facts.resize],
        border=114 if facts.channels in (2, 4) else 255,
        colours=_COLOURS[facts.channels],
        place="(y * WIDTH + x) * CHANNELS + c" if facts.channels_last else "(c * HEIGHT + y) * WIDTH + x",
        value=value_of(facts),
        images="values" if facts.batch == 1 else f"{array}({facts.batch} * values.size) {{ values[it % values.size] }}",
    )


def value_of(facts: Facts) -> str:
    """Return the expression that turns a pixel of 0 to 255 into a value of the input."""
    value = "pixel / 255f" if facts.mean else "pixel"
    if facts.normalises:
        value = "(pixel / 255f - MEAN[c]) / STD[c]"
    if facts.scale:
        scale, zero_point = facts.scale
        return f"(Math.rint({value} / {scale!r}).toInt() + {zero_point}).coerceIn(-128, 127).toByte()"
    return "Math.round(pixel).toByte()" if facts.image.type == "uint8" else value


_GREY = "0.299f * Color.red(colour) + 0.587f * Color.green(colour) + 0.114f * Color.blue(colour)"
_RGB = ", ".join(f"Color.{name}(colour).toFloat()" for name in ("red", "green", "blue"))
_ALPHA = "Color.alpha(colour).toFloat()"
_COLOURS = {1: _GREY, 2: f"{_GREY}, {_ALPHA}", 3: _RGB, 4: f"{_RGB}, {_ALPHA}"}
_FACTOR = """\
    val factor = {}(WIDTH / photo.width.toFloat(), HEIGHT / photo.height.toFloat())
    val width = Math.round(photo.width * factor)
    val height = Math.round(photo.height * factor)
    val left = (WIDTH - width) / 2
    val top = (HEIGHT - height) / 2
    val place = Rect(left, top, left + width, top + height)"""
_FIT = {
    "letterbox": _FACTOR.format("minOf"),
    "centre_crop": _FACTOR.format("maxOf"),
    "stretch": "    val place = Rect(0, 0, WIDTH, HEIGHT)",
}
_PROGRAM = """\
// Runs {file} on an image. In Gradle:
//     implementation("com.google.ai.edge.litert:litert:2.3.0"), and the file in assets/.
import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.PorterDuff
import android.graphics.PorterDuffXfermode
import android.graphics.Rect
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

{size}
{constants}
/** Opens the file; do it once. */
fun load(context: Context): CompiledModel =
    CompiledModel.create(context.assets, "{file}", CompiledModel.Options(Accelerator.CPU))

/** Returns the values of each output. */
fun predict(model: CompiledModel, photo: Bitmap): Map<String, Any> {{
    val input = model.createInputBuffer("{input}")
    val outputs = listOf({names}).associateWith {{ model.createOutputBuffer(it) }}
    input.{writer}(prepare(photo))
    model.run(mapOf("{input}" to input), outputs)
    val values = mapOf<String, Any>(
{outputs}
    )
    input.close()
    outputs.values.forEach {{ it.close() }}
    return values
}}

/** Returns the input of the file: {shape}, {type}. */
private fun prepare(photo: Bitmap): {array} {{
{fit}
    val resized = Bitmap.createBitmap(WIDTH, HEIGHT, Bitmap.Config.ARGB_8888)
    resized.eraseColor(Color.argb({border}, 114, 114, 114))
    val paint = Paint(Paint.FILTER_BITMAP_FLAG)
    paint.xfermode = PorterDuffXfermode(PorterDuff.Mode.SRC)
    Canvas(resized).drawBitmap(photo, null, place, paint)
    val colours = IntArray(WIDTH * HEIGHT)
    resized.getPixels(colours, 0, WIDTH, 0, 0, WIDTH, HEIGHT)
    val values = {array}(CHANNELS * HEIGHT * WIDTH)
    for (y in 0 until HEIGHT) for (x in 0 until WIDTH) {{
        val colour = colours[y * WIDTH + x]
        val pixels = floatArrayOf(
            {colours}
        )
        for ((c, pixel) in pixels.withIndex()) values[{place}] = {value}
    }}
    return {images}
}}
"""
