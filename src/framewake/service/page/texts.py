"""Every text of the page in English and Chinese; what ``Request`` says of its settings is not repeated."""

from __future__ import annotations

import string
from collections.abc import Mapping

from framewake.request import settings

LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}

_ENGLISH = {
    "title": "framewake",
    "subtitle": "One picture and a sentence become a video.",
    "model": "Model: $name",
    "examples.title": "Examples to click:",
    "logout": "Log out",
    "picture.label": "Picture",
    "picture.drop": "Drop a picture here, paste one, or choose a file",
    "picture.restore": "A clip made here works too: its settings come back.",
    "picture.change": "Another picture",
    "picture.crop": "The outlined part becomes the video: $width × $height px.",
    "picture.whole": "The whole picture becomes the video: $width × $height px.",
    "picture.broken": "This file cannot be shown as a picture. Choose a PNG, JPEG or WebP file.",
    "picture.large": "This file is too large: the limit is $most MB.",
    "picture.alt": "The picture that the video starts from",
    "prompt.label": "What happens?",
    "prompt.placeholder": "The woman turns her head and smiles, sunlight through the trees.",
    "advice.title": "A good prompt",
    "advice.short": "is short: one or two precise sentences.",
    "advice.subject": "names who or what moves, and the action.",
    "advice.setting": "may add the background and the camera: “slow zoom in”.",
    "advice.detail": "leaves out small details: too many make the scene change.",
    "advice.demo": "The demonstration model knows plain coloured shapes that move, grow, shrink, spin, bounce or fade.",
    "advice.domain": "is about what this model knows: $what.",
    "setting.motion": "Motion",
    "setting.motion.help": "Stable keeps close to the picture, dynamic moves more.",
    "setting.motion.stable": "stable",
    "setting.motion.dynamic": "dynamic",
    "setting.seed.random": "random",
    "setting.seed.dice": "Roll the dice for a seed",
    "setting.reset": "Reset: $name",
    "setting.cache.page": "Skips steps that change little; a rule such as easy:0.05 can be typed too.",
    "setting.cache.off": "Off (exact)",
    "setting.cache.fast": "Fast",
    "setting.cache.faster": "Faster",
    "lora.title": "LoRA",
    "lora.label": "LoRA files",
    "lora.help": "Chosen files change the style; each has a weight.",
    "lora.none": "This server offers no LoRA files.",
    "lora.weight": "Weight of $name",
    "advanced.title": "Advanced settings",
    "plan.title": "What it will take",
    "plan.empty": "Add a picture to see how large the video will be, and how much memory and time it takes.",
    "plan.clip": "$width × $height px, $frames frames ($seconds s)",
    "plan.memory": "about $memory on $device",
    "plan.memory.each": "about $memory on each of $count devices ($device)",
    "plan.time": "about $time",
    "plan.streamed": "weights are read from disk while it computes",
    "plan.unknown": "No worker has reported its speed yet.",
    "plan.label.clip": "Video",
    "plan.label.memory": "Memory",
    "plan.label.time": "Time",
    "plan.refused": "This is not possible:",
    "make": "Make the video",
    "make.busy": "Submitting …",
    "make.no_prompt": "Say in a sentence what happens in the video.",
    "make.no_picture": "Choose a picture first.",
    "seeds.label": "How many videos, each with another seed",
    "seeds.one": "1 video",
    "seeds.many": "$count seeds",
    "seeds.seed": "seed $seed",
    "seeds.drafts": "Drafts first: all pause early, and you choose which go on.",
    "seeds.together": "The same with several seeds",
    "frames.snapped": "$asked frames are not possible: $made will be made (1, 5, 9 and so on, at most $most).",
    "videos.title": "Your videos",
    "videos.empty": "Nothing here yet",
    "videos.empty.hint": "Choose a picture, say what happens, and press “Make the video”. It will appear here.",
    "videos.more": "Show older ones",
    "videos.working": "No worker is running: videos wait until one starts.",
    "videos.lost": "The server does not answer. Trying again …",
    "state.queued": "waiting",
    "state.in_progress": "being made",
    "state.paused": "paused",
    "state.completed": "ready",
    "state.failed": "failed",
    "state.cancelled": "cancelled",
    "stage.read image": "Reading the picture",
    "stage.encode text": "Reading the prompt",
    "stage.encode image": "Preparing the picture",
    "stage.denoise": "Making the video",
    "stage.decode": "Decoding the frames",
    "stage.write": "Writing the file",
    "stage.start": "Starting",
    "video.position": "Place $position in the queue",
    "video.next": "Next in the queue",
    "video.step": "Step $step of $steps",
    "video.left": "about $time left",
    "video.takes": "takes about $time",
    "video.gone": "This video was removed.",
    "video.cancelled": "You stopped this one.",
    "video.paused": "Paused after step $step of $steps",
    "video.draft": "Draft of what is expected by now",
    "video.pausing": "pauses with a draft",
    "video.pause": "Pause and look",
    "video.resume": "Go on",
    "video.drop": "Drop",
    "video.cancel": "Cancel",
    "video.retry": "Try again",
    "video.reuse": "Use these settings",
    "video.download": "Download",
    "video.remove": "Remove",
    "video.removed": "Removed: $prompt",
    "video.undo": "Undo",
    "video.details": "$size · $frames frames · $steps steps · seed $seed",
    "video.loras": " · LoRA $names",
    "video.preview": "Preview of the current step",
    "time.seconds": "$count s",
    "time.minutes": "$count min",
    "time.hours": "$count h $minutes min",
    "ago.now": "just now",
    "ago.minutes": "$count min ago",
    "ago.hours": "$count h ago",
    "ago.days": "$count d ago",
    "restore.done": "Settings restored.",
    "restore.picture": "The clip does not contain its picture: add that too to get the same video.",
    "restore.loras": "Left out, because this server does not offer them: $names.",
    "error.network": "The server did not answer. Nothing was lost; try again.",
    "error.title": "That did not work:",
    "login.title": "Key",
    "login.hint": "This server asks for an API key. This device then stays logged in for 30 days.",
    "login.button": "Open",
    "login.wrong": "This key is unknown.",
}

_CHINESE = {
    "title": "framewake",
    "subtitle": "一张图片加一句话，生成一段视频。",
    "model": "模型：$name",
    "examples.title": "点击示例：",
    "logout": "退出登录",
    "picture.label": "图片",
    "picture.drop": "将图片拖到这里、粘贴，或选择文件",
    "picture.restore": "也可以放入这里生成的视频，恢复它的设置。",
    "picture.change": "换一张图片",
    "picture.crop": "框内部分将成为视频：$width × $height 像素。",
    "picture.whole": "整张图片将成为视频：$width × $height 像素。",
    "picture.broken": "该文件无法作为图片显示。请选择 PNG、JPEG 或 WebP 文件。",
    "picture.large": "文件过大：最多 $most MB。",
    "picture.alt": "视频的起始图片",
    "prompt.label": "发生什么？",
    "prompt.placeholder": "女子转过头微笑，阳光穿过树林。",
    "advice.title": "好的提示词",
    "advice.short": "简短：一两句准确的话。",
    "advice.subject": "写明主体和动作。",
    "advice.setting": "可以补充背景和镜头，例如“镜头缓慢推进”。",
    "advice.detail": "不写琐碎细节：细节过多会使画面突变。",
    "advice.demo": "演示模型只认识纯色图形和英文提示词：移动、变大、变小、旋转、弹跳、淡出"
    "（moves、grows、shrinks、spins、bounces、fades）。",
    "advice.domain": "在模型的认识范围内：$what。",
    "setting.motion": "运动",
    "setting.motion.help": "“稳定”贴近原图，“动态”幅度更大。",
    "setting.motion.stable": "稳定",
    "setting.motion.dynamic": "动态",
    "setting.seed.random": "随机",
    "setting.seed.dice": "掷骰子取一个种子",
    "setting.reset": "重置：$name",
    "setting.cache.page": "跳过变化很小的步骤；也可以输入规则，如 easy:0.05。",
    "setting.cache.off": "关闭（精确）",
    "setting.cache.fast": "快",
    "setting.cache.faster": "更快",
    "lora.title": "LoRA",
    "lora.label": "LoRA 文件",
    "lora.help": "所选文件会改变风格，各有权重。",
    "lora.none": "此服务器未提供 LoRA 文件。",
    "lora.weight": "$name 的权重",
    "advanced.title": "高级设置",
    "plan.title": "预计开销",
    "plan.empty": "选择图片后，这里会显示视频的尺寸，以及所需的内存和时间。",
    "plan.clip": "$width × $height 像素，$frames 帧（$seconds 秒）",
    "plan.memory": "在 $device 上约 $memory",
    "plan.memory.each": "$count 台设备（$device）上各约 $memory",
    "plan.time": "约 $time",
    "plan.streamed": "计算时从磁盘读取权重",
    "plan.unknown": "尚无工作进程报告速度。",
    "plan.label.clip": "视频",
    "plan.label.memory": "内存",
    "plan.label.time": "时间",
    "plan.refused": "无法生成：",
    "make": "生成视频",
    "make.busy": "正在提交……",
    "make.no_prompt": "请用一句话说明视频中发生什么。",
    "make.no_picture": "请先选择一张图片。",
    "seeds.label": "视频数量，每个使用不同的种子",
    "seeds.one": "1 个视频",
    "seeds.many": "$count 个种子",
    "seeds.seed": "种子 $seed",
    "seeds.drafts": "先看草稿：全部提前暂停，由你选择哪些继续。",
    "seeds.together": "同样的设置，不同的种子",
    "frames.snapped": "无法生成 $asked 帧，已改为 $made 帧（1、5、9 等，最多 $most）。",
    "videos.title": "你的视频",
    "videos.empty": "这里还没有视频",
    "videos.empty.hint": "选择一张图片，写下发生什么，然后点击“生成视频”。结果会出现在这里。",
    "videos.more": "显示更早的视频",
    "videos.working": "没有正在运行的工作进程：视频会排队等待。",
    "videos.lost": "服务器没有响应，正在重试……",
    "state.queued": "等待中",
    "state.in_progress": "生成中",
    "state.paused": "已暂停",
    "state.completed": "已完成",
    "state.failed": "失败",
    "state.cancelled": "已取消",
    "stage.read image": "读取图片",
    "stage.encode text": "读取提示词",
    "stage.encode image": "准备图片",
    "stage.denoise": "生成视频",
    "stage.decode": "解码画面",
    "stage.write": "写入文件",
    "stage.start": "正在开始",
    "video.position": "排在第 $position 位",
    "video.next": "下一个就是它",
    "video.step": "第 $step 步，共 $steps 步",
    "video.left": "约剩 $time",
    "video.takes": "约需 $time",
    "video.gone": "该视频已被删除。",
    "video.cancelled": "你停止了这段视频。",
    "video.paused": "已在第 $step 步（共 $steps 步）后暂停",
    "video.draft": "目前预期结果的草稿",
    "video.pausing": "将暂停并给出草稿",
    "video.pause": "暂停查看",
    "video.resume": "继续",
    "video.drop": "放弃",
    "video.cancel": "取消",
    "video.retry": "重试",
    "video.reuse": "使用这些设置",
    "video.download": "下载",
    "video.remove": "删除",
    "video.removed": "已删除：$prompt",
    "video.undo": "撤销",
    "video.details": "$size · $frames 帧 · $steps 步 · 种子 $seed",
    "video.loras": " · LoRA：$names",
    "video.preview": "当前步骤的预览",
    "time.seconds": "$count 秒",
    "time.minutes": "$count 分钟",
    "time.hours": "$count 小时 $minutes 分钟",
    "ago.now": "刚刚",
    "ago.minutes": "$count 分钟前",
    "ago.hours": "$count 小时前",
    "ago.days": "$count 天前",
    "restore.done": "设置已恢复。",
    "restore.picture": "视频文件中不含原图：要得到相同的视频，请同时添加原图。",
    "restore.loras": "此服务器未提供，已略去：$names。",
    "error.network": "服务器没有响应。没有丢失任何内容，请重试。",
    "error.title": "操作未成功：",
    "login.title": "密钥",
    "login.hint": "此服务器需要 API 密钥。之后本设备保持登录 30 天。",
    "login.button": "打开",
    "login.wrong": "此密钥无效。",
    # Settings of a request: name, help, and what is done when it is left empty.
    "setting.prompt": "提示词",
    "setting.prompt.help": "视频中发生什么，一两句话。",
    "setting.image": "图片",
    "setting.image.help": "视频的起始图片。",
    "setting.image.unset": "无图片",
    "setting.negative_prompt": "负面提示词",
    "setting.negative_prompt.help": "要避免的内容；仅在引导强度大于 1 时使用。",
    "setting.negative_prompt.unset": "模型自带的缺陷列表",
    "setting.resolution": "分辨率",
    "setting.resolution.help": "分辨率等级；确切尺寸由图片的形状决定。",
    "setting.frames": "帧数",
    "setting.frames.help": "视频的帧数，为 4 的倍数加 1。",
    "setting.frames.unset": "模型默认长度",
    "setting.steps": "步数",
    "setting.steps.help": "去噪步数：越多越慢，细节越好。",
    "setting.steps.unset": "模型默认步数",
    "setting.seed": "种子",
    "setting.seed.help": "决定噪声的数字：种子相同，视频相同。",
    "setting.seed.unset": "随机抽取并告知",
    "setting.is_stable": "稳定",
    "setting.is_stable.help": "让视频平稳并贴近原图。",
    "setting.flow_shift": "时间步偏移",
    "setting.flow_shift.help": "数值越大，越多步数用于运动。",
    "setting.flow_shift.unset": "稳定时 7，动态时 17",
    "setting.embedded_guidance": "内嵌引导",
    "setting.embedded_guidance.help": "模型蒸馏时使用的引导强度。",
    "setting.guidance_scale": "引导强度",
    "setting.guidance_scale.help": "针对负面提示词的经典引导；大于 1 时每步耗时加倍。",
    "setting.fps": "帧率",
    "setting.fps.help": "文件每秒的帧数，可以是小数。",
    "setting.fps.unset": "模型默认帧率",
    "setting.precision": "精度",
    "setting.precision.help": "变换器的数值类型；auto 按设备选择。",
    "setting.background": "背景色",
    "setting.background.help": "图片透明处的底色：white、#ff8800 等。",
    "setting.takes_first_frame": "取视频首帧",
    "setting.takes_first_frame.help": "以视频作为图片时取哪一帧。",
    "setting.vae_tiling": "VAE 分块",
    "setting.vae_tiling.help": "以重叠的小块解码：占用内存更少，与原版一致。",
    "setting.rng": "随机数",
    "setting.rng.help": "噪声来源：philox 处处得到相同的视频，torch 使用 PyTorch 的生成器。",
    "setting.loras": "LoRA",
    "setting.loras.help": "LoRA 文件及其权重。",
    "setting.ignores_lora_alpha": "忽略 LoRA 的 alpha",
    "setting.ignores_lora_alpha.help": "与原版一样，不乘以 alpha / rank。",
    "setting.allows_partial_loras": "允许部分 LoRA",
    "setting.allows_partial_loras.help": "应用 LoRA 文件中适用的部分，而不是拒绝它。",
    "setting.cache": "步骤缓存",
    "setting.cache.help": "跳过变化很小的步骤：fast、faster，或规则加数值，如 easy:0.05、taylor1:2；off 得到精确结果。",
}


def _of_settings() -> dict[str, str]:
    """English names and descriptions, as ``Request`` has them."""
    found = {}
    for name, setting in settings().items():
        words = (
            name.removeprefix("is_")
            .replace("_", " ")
            .replace("vae", "VAE")
            .replace("lora", "LoRA")
            .replace("fps", "FPS")
        )
        found[f"setting.{name}"] = words[0].upper() + words[1:]
        found[f"setting.{name}.help"] = setting.help
        if setting.unset:
            found[f"setting.{name}.unset"] = setting.unset
    return found


TEXTS: Mapping[str, Mapping[str, str]] = {"en": _of_settings() | _ENGLISH, "zh": _CHINESE}


def say(language: str, key: str, *, values: Mapping[str, object] | None = None) -> str:
    """One text with its values filled in."""
    text = TEXTS[language].get(key) or TEXTS["en"][key]
    return string.Template(text).substitute(values or {})


def preferred(accepted: str) -> str:
    """The language of an Accept-Language header; English unless Chinese stands before it."""
    ranked: list[tuple[float, int, str]] = []
    for part in accepted.lower().split(","):
        tag, _, weight = part.strip().partition(";q=")
        language = tag.partition("-")[0]
        if language in LANGUAGES:
            ranked.append((-_weight(weight), len(ranked), language))
    return min(ranked)[2] if ranked else "en"


def _weight(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0.0


def lasting(language: str, seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return say(language, "time.seconds", values={"count": max(1, round(seconds))})
    minutes = round(seconds / 60)
    if minutes < 90:
        return say(language, "time.minutes", values={"count": minutes})
    return say(language, "time.hours", values={"count": minutes // 60, "minutes": minutes % 60})
