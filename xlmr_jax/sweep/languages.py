"""The sets of languages of the paper's studies, by CC-100's codes.

The paper names the first seven (Conneau et al. 2020, section 5.1), which all its sets hold, and gives only the sizes of the
others. Ours: 15 are XNLI's languages; 30 and 60 add those of most tokens in the paper's Table 6, without romanized text.
"""

SEVEN = ("de", "en", "fr", "ru", "sw", "ur", "zh_Hans")
SEVEN_OF_TASKS = tuple(name.partition("_")[0] for name in SEVEN)  # Tasks, and the demo, call Chinese zh.
FIFTEEN = tuple(sorted((*SEVEN, "ar", "bg", "el", "es", "hi", "th", "tr", "vi")))
THIRTY = tuple(
  sorted((*FIFTEEN, *["da", "fa", "fi", "hu", "id", "it", "ko", "nl", "no", "pl", "pt", "ro", "sk", "sv", "uk"]))
)
SIXTY = tuple(
  sorted(
    (
      *THIRTY,
      *[
        "af",
        "az",
        "be",
        "bn",
        "ca",
        "cs",
        "et",
        "eu",
        "gl",
        "he",
        "hr",
        "hy",
        "is",
        "ja",
        "ka",
        "kk",
        "la",
        "lt",
        "lv",
        "mk",
        "ml",
        "mn",
        "ms",
        "si",
        "sl",
        "sq",
        "sr",
        "ta",
        "te",
        "tl",
      ],
    )
  )
)
ALL = ()  # every language of the rows

# Of the seven, the paper calls the mean of the first two high-resource and that of the last two low-resource.
GROUPS = {"high": ("en", "fr"), "low": ("sw", "ur")}
