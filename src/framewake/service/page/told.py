"""The server's refusals in the language of the page: the API itself speaks English.

A message is matched as a whole against patterns, which Python and the browser's scripts read alike. In a translation,
``{1}`` is a part of the message as it stands, ``{setting:1}`` the name of a setting, ``{field:1}`` that of a field of
the API, ``{state:1}`` a job's state and ``{told:1}`` a sentence that is translated in its turn.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

from framewake.service.fields import FIELD_OF
from framewake.service.page.texts import TEXTS

_RESEND = "请换一张 PNG、JPEG 或 WebP 图片。"
_CHINESE: Sequence[tuple[str, str]] = (
    # Settings
    (r"(\w+) is (.+): expected a whole number from (\S+) to (\S+)\.", "{setting:1}为 {2}：应为 {3} 到 {4} 的整数。"),
    (r"(\w+) is (.+): expected a number from (\S+) to (\S+)\.", "{setting:1}为 {2}：应为 {3} 到 {4} 的数。"),
    (r"(\w+) is (.+): expected a whole number\.", "{setting:1}为 {2}：应为整数。"),
    (r"(\w+) is (.+): expected a number\.", "{setting:1}为 {2}：应为数字。"),
    (r"(\w+) is (.+): choose one of (.+?)\..*", "{setting:1}为 {2}：请从 {3} 中选择。"),
    (r"(\w+) holds (?:characters that|a zero byte).*", "{setting:1}含有无效字符，请重新输入。"),
    (r"resolution (.+) is unknown: choose one of (.+?)\..*", "分辨率 {1} 无效：请从 {2} 中选择。"),
    (
        r"resolution (.+) is not what this checkpoint was trained for: take (.+), or .*",
        "此模型没有分辨率 {1}：请从 {2} 中选择。",
    ),
    (
        r"(\d+) frames cannot be made: .*\(1, 5, 9, .*\)\. The nearest is (\d+)\.",
        "无法生成 {1} 帧：帧数须为 4 的倍数加 1（1、5、9 …… 129），最接近的是 {2}。",
    ),
    (r"(\d+) frames? cannot be made.*take 5 or more\.", "此模型会丢弃前 4 帧，无法生成 {1} 帧：请至少取 5 帧。"),
    (r"the prompt is empty: .*", "提示词为空：请用一句话说明视频中发生什么。"),
    (
        r"crop is (.+?): expected two numbers.*",
        "裁剪位置为 {1}：应为两个 0 到 1 的数，如 0.5,0.5（居中），或 fit（保留整张图片）。",
    ),
    (r"cache is (.+?): .*", "步骤缓存为 {1}：应为 off、fast、faster，或规则加数值，如 easy:0.05、taylor1:2、fixed:2。"),
    (r"the server has no LoRA (.+): it has none\..*", "服务器没有 LoRA {1}，也未提供其他 LoRA。"),
    (r"the server has no LoRA (.+): it has (.+?)\..*", "服务器没有 LoRA {1}，现有：{2}。"),
    (r"LoRA (.+): the span from step .* there are (\d+) steps\.", "LoRA {1} 的权重所在步数不存在：共 {2} 步。"),
    (r"these settings cannot be read\.", "无法读取这些设置。"),
    (r"setting (.+?) is unknown\..*", "未知的设置 {1}：可能来自其他版本。"),
    (r"a request needs a prompt: .*", "设置中没有提示词。"),
    # Fields, as the API checks them
    (r"(\w+) is too long: at most (\d+) characters?\.", "{field:1}过长：最多 {2} 个字符。"),
    (r"lora\.\d+\.scale is (.+): expected (?:greater|less) than or equal to (\S+)\.", "LoRA 权重为 {1}：界限为 {2}。"),
    (r"(\w+) is (.+): expected greater than or equal to (\S+)\.", "{field:1}为 {2}：至少为 {3}。"),
    (r"(\w+) is (.+): expected less than or equal to (\S+)\.", "{field:1}为 {2}：最多为 {3}。"),
    (r"(\w+) is (.+): expected a valid integer.*", "{field:1}为 {2}：应为整数。"),
    (r"(\w+) is (.+): expected a valid number.*", "{field:1}为 {2}：应为数字。"),
    (r"lora holds too many: at most (\d+) items\.", "LoRA 过多：最多 {1} 个。"),
    # The picture
    (r"(?:this checkpoint animates a picture and none was named|input_reference is missing).*", "请先选择一张图片。"),
    (r"input_reference is empty.*", f"图片文件为空。{_RESEND}"),
    (r"this checkpoint makes videos from text alone.*", "此模型只根据文字生成视频，不需要图片。"),
    (
        r"the picture is not the one that was handed in, but lost or damaged.*",
        "服务器上的图片已丢失或损坏，请重新提交。",
    ),
    (r".+: the picture is damaged or cut off \(.*\)\..*", f"图片已损坏或不完整。{_RESEND}"),
    (r".+ is a HEIC picture.*", f"服务器不能读取 HEIC 图片。{_RESEND}"),
    (r".+ is a camera's raw picture\..*", f"不支持相机的 RAW 图片。{_RESEND}"),
    (
        r".+ is (?:not a picture that can be read|(.+), not a picture that can be read|damaged or cut off, or a).*",
        f"无法读取该图片。{_RESEND}",
    ),
    (r".+ is too big \((.+)\): at most (\d+) megapixels are read\..*", "图片过大（{1}）：最多 {2} 百万像素，请缩小。"),
    (r".+ is empty \(0 bytes\).*", f"图片文件为空。{_RESEND}"),
    (
        r".+ is (\d+) x (\d+) px: one side may be at most (\d+) times the other\. .*",
        "图片为 {1} × {2} 像素：长边最多为短边的 {3} 倍，请先裁剪。",
    ),
    (r".+ is moving and its last frame is far away \((\d+) frames.*", "动画过长（{1} 帧）：请保存所需的一帧再提交。"),
    (r".+: its end lies more than (\d+) frames behind.*", "视频过长：请保存所需的一帧再提交。"),
    (
        r"background is (.+?)(?:: expected a colour|, which is itself transparent).*",
        "背景色为 {1}：应为 white、#ff8800 等。",
    ),
    (r".+ holds numbers below zero.*", f"不支持含负数的图片。{_RESEND}"),
    (r".+ holds floating-point brightness.*", f"不支持浮点亮度的图片。{_RESEND}"),
    (r".+: its colours, of the kind .+, cannot be read.*", f"不支持该图片的颜色格式。{_RESEND}"),
    (r"the picture has (\d+) x (\d+) px; at most ([\d,]+) pixels.*", "图片为 {1} × {2} 像素：最多 {3} 像素，请缩小。"),
    (r"the picture's size is .*", "无法识别图片的尺寸。"),
    (r"the (?:picture|clip) has more than ([\d,]+) bytes\.", "文件过大：最多 {1} 字节。"),
    (r"the request is too large: a picture may have ([\d,]+) bytes\.", "文件过大：图片最多 {1} 字节。"),
    # A clip whose settings are wanted
    (r".+ holds no settings of framewake.*", "该文件中没有 framewake 的设置：它由其他程序生成，或未保存设置。"),
    (r".+: the video is damaged or of a kind that is not read.*", "该视频已损坏或格式未知。"),
    (r".+ (?:holds no video|is no video but).*", "该文件中没有视频。"),
    (r"the clip's metadata holds no request.*", "该视频由其他版本生成，其中没有可用的设置。"),
    # The queue
    (r"more than (\d+) videos a minute: wait (\d+) s\.", "每分钟最多提交 {1} 个视频：请等待 {2} 秒。"),
    (r"(\d+) videos are waiting already, (\d+) may: try later\.", "已有 {1} 个视频在等待，上限为 {2}：请稍后再试。"),
    (r"the video is (\w+) already\.", "该视频{state:1}。"),
    (r"the video is (\w+): only a paused one can go on\.", "该视频{state:1}：只有已暂停的视频可以继续。"),
    (r"the last step that a video can pause behind is done: .*", "可暂停的最后一步已经完成，视频正在收尾。"),
    (r"the video is (\w+): only a failed or cancelled one.*", "该视频{state:1}：只有失败或已取消的视频可以重试。"),
    (r"the video is (\w+): cancel it first\.", "该视频{state:1}：请先取消。"),
    (r"the video is (\w+): only a completed one can go on\.", "该视频{state:1}：只有已完成的视频可以继续。"),
    (r"the video is (\w+): there is no file yet\.", "该视频{state:1}：还没有文件。"),
    (r"other clips are being turned into GIF or WebP: .*", "正在转换其他视频为 GIF 或 WebP：请几秒后再试。"),
    (r"there is no such video\.", "没有这个视频。"),
    (r"there is no .+ of this video\.", "该视频没有这个文件。"),
    (r"the server's disk is full.*", "服务器磁盘已满：腾出空间之前不接受新的视频。"),
    (r"the server's database does not answer now.*", "服务器的数据库暂时没有响应：请几秒后再试。"),
    # Why a video failed or cannot be made
    (
        r"the .+ needs (.+) on (.+) at the least \((.+) for weights\) and may take (.+?) beside the (.+?) that "
        r".*?\. (.*)",
        "在 {2} 上至少需要 {1}（其中权重 {3}），进程已占用 {5}，还可用 {4}。{told:6}",
    ),
    (r"The largest that fits: (.+)\.", "可行的最大设置：{1}。"),
    (r"Nothing is lost: free some memory.*", "进度已保留：请释放内存或换用其他设备。"),
    (r"Not even one frame of the smallest size fits.*", "最小尺寸的一帧也放不下：请换用其他设备或增加内存。"),
    (
        r"(.+) ran out of memory in the stage .*, (.+) are free now\..*",
        "{1} 内存不足（可用 {2}）：请减少帧数。",
    ),
    (
        r"(\w+) appeared in the latents at step (\d+) of (\d+) in (\w+)\. .*",
        "第 {2} 步（共 {3} 步）出现 {1}（精度 {4}）：请将精度改为 float32，或恢复默认设置。",
    ),
    (r"the decoded frames hold NaN.*", "解码的画面含有 NaN：请将精度改为 float32。"),
    (r"the server could not make this video; its log says why\.", "服务器未能生成该视频，原因见其日志。"),
    (r"the worker died again and again over this video.*", "工作进程在该视频上反复崩溃，原因见服务器日志。"),
    # Notes
    (
        r"this picture and prompt do not look like what the demonstration checkpoint knows.*",
        "图片和提示词都不像演示模型所认识的内容：它只认识一两个简单图形，"
        "以及 “the red circle moves right” 这样的英文提示词。其他内容请使用正式发布的权重。",
    ),
    (
        r"this prompt does not look like what the demonstration checkpoint knows.*",
        "提示词不像演示模型所认识的内容：请用英文写出图形和动作，例如 “the red circle moves right”。"
        "其他内容请使用正式发布的权重。",
    ),
    (
        r"this picture does not look like what the demonstration checkpoint knows.*",
        "图片不像演示模型所认识的内容：它只认识纯色背景上的一两个简单图形。其他内容请使用正式发布的权重。",
    ),
    (r"the embedded guidance changes nothing: .*", "内嵌引导不起作用：此变换器没有经过引导蒸馏。"),
    (r"stable or dynamic changes nothing: .*", "稳定与动态没有区别：此模型的视频都只从噪声开始。"),
    (
        r"the negative prompt is not used: the guidance scale is (.+), and .*",
        "未使用负面提示词：引导强度为 {1}，大于 1 时才使用。",
    ),
    (
        r"the prompt has (\d+) tokens and (\d+) are used \(the limit\); not used: (.+)",
        "提示词共 {1} 个词元，超出上限，只使用前 {2} 个；未使用的部分：{3}",
    ),
    (
        r"the prompt is longer than the small text encoder reads \((\d+) tokens\).* leaves out: (.+)",
        "提示词较长（{1} 个词元）：大文本编码器会读完整，小文本编码器略去：{2}",
    ),
    (r".+: it is transparent everywhere: (.+) lies under it.*", "图片完全透明：只能看到其下的 {1}。"),
    (r".+: it is transparent in places: (.+) lies under it.*", "图片有透明部分：其下衬以 {1}。"),
    (r".+: its colours are (.+) and were converted to sRGB\.", "图片的颜色（{1}）已转换为 sRGB。"),
    (r".+: its colour profile cannot be used \((.+)\).*", "图片的颜色配置文件无法使用（{1}），按 sRGB 处理。"),
    (r".+: it is in HDR \((.+)\) .*", "图片为 HDR（{1}），已转换到普通图片的亮度范围。"),
    (r".+: it has numbers of (\d+) bits.*they are taken as (\d+) bits\.", "图片标为 {1} 位，实际按 {2} 位读取。"),
    (r".+: it is moving: its first frame is taken\.", "文件是动态的：取其第一帧。"),
    (r".+: it is moving: its last frame is taken.*", "文件是动态的：取其最后一帧。"),
    (r".+: it has several pages: the first one is taken\.", "文件有多页：取第一页。"),
    (
        r".+: it has several pages: number (\d+), the first in full size, is taken\.",
        "文件有多页：取第 {1} 页（第一张原尺寸图）。",
    ),
    (
        r".+: its pixels are not square: it was stretched to (\d+) x (\d+) px.*",
        "像素不是方形：已按 {1} × {2} 像素显示。",
    ),
    (
        r"other programs take (\d+%) of the processors now: .*",
        "其他程序正占用 {1} 的处理器，实际用时可能长达数倍。",
    ),
    (
        r"other programs took (\d+%) of the processors when the speed was measured: .*",
        "测速时其他程序占用了 {1} 的处理器，实际可能更快。",
    ),
    (
        r"what was saved was made elsewhere \((.*)\): .*",
        "中断前的部分是在其他环境中生成的（{1}）：视频质量相同，但与一次生成的结果并非逐位一致。",
    ),
    # The door
    (r"this request comes from a page of another site\.", "该请求来自其他网站的页面。"),
    (r"this server answers to localhost only\.", "此服务器只接受本机访问。"),
    (r"a valid API key is needed.*", "需要有效的 API 密钥。"),
    (r"the page sent something that is no setting\.", "页面发送了无效的设置。"),
    # Whatever else: better understood by some than by nobody
    (r"(.*)", "服务器的说明（英文）：{1}"),
)
PATTERNS: Mapping[str, Sequence[tuple[str, str]]] = {"en": (), "zh": _CHINESE}


def names_of(language: str) -> dict[str, str]:
    """How the page calls settings, fields of the API and states."""
    texts = TEXTS[language]
    named = {key: text for key, text in texts.items() if key.startswith(("setting.", "state.")) and key.count(".") == 1}
    fields = {f"field.{field}": texts[f"setting.{name}"] for name, field in FIELD_OF.items()}
    return named | fields | {"field.prompt": texts["setting.prompt"]}


def translated(language: str, message: str) -> str:
    """A message of the server in a language of the page; as it is where the language is the server's own."""
    for pattern, text in PATTERNS[language]:
        found = re.fullmatch(pattern, message, re.DOTALL)
        if found is not None:
            return re.sub(r"\{(?:(\w+):)?(\d)\}", functools.partial(_filled, language, found), text)
    return message


def _filled(language: str, found: re.Match[str], part: re.Match[str]) -> str:
    kind, value = part[1], found[int(part[2])]
    if kind is None:
        return value
    if kind == "told":
        return translated(language, value)
    return names_of(language).get(f"{kind}.{value}", value)
