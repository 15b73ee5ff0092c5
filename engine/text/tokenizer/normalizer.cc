#include "engine/text/tokenizer/normalizer.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/unistr.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace thermocline {
namespace {

std::string UnicodeForm(const icu::Normalizer2* form, absl::string_view text) {
  UErrorCode error = U_ZERO_ERROR;
  std::string normalized;
  icu::StringByteSink<std::string> sink(&normalized);
  form->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                      nullptr, error);
  return U_FAILURE(error) ? std::string(text) : normalized;
}

const icu::Normalizer2* FormOf(NormalizerStep::Kind kind) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* form = nullptr;
  switch (kind) {
    case NormalizerStep::Kind::kNfc:
      form = icu::Normalizer2::getNFCInstance(error);
      break;
    case NormalizerStep::Kind::kNfkc:
      form = icu::Normalizer2::getNFKCInstance(error);
      break;
    case NormalizerStep::Kind::kNfd:
      form = icu::Normalizer2::getNFDInstance(error);
      break;
    case NormalizerStep::Kind::kNfkd:
      form = icu::Normalizer2::getNFKDInstance(error);
      break;
    default:
      break;
  }
  return U_FAILURE(error) ? nullptr : form;
}

std::string Lowercase(absl::string_view text) {
  icu::UnicodeString wide = icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  wide.toLower(icu::Locale::getRoot());
  std::string lower;
  wide.toUTF8String(lower);
  return lower;
}

}  // namespace

std::string Normalize(const std::vector<NormalizerStep>& steps, absl::string_view text) {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::Kind::kNfc:
      case NormalizerStep::Kind::kNfkc:
      case NormalizerStep::Kind::kNfd:
      case NormalizerStep::Kind::kNfkd:
        if (const icu::Normalizer2* form = FormOf(step.kind)) out = UnicodeForm(form, out);
        break;
      case NormalizerStep::Kind::kLowercase:
        out = Lowercase(out);
        break;
      case NormalizerStep::Kind::kPrepend:
        if (!out.empty()) out = absl::StrCat(step.content, out);
        break;
      case NormalizerStep::Kind::kReplace:
        out = absl::StrReplaceAll(out, {{step.pattern, step.content}});
        break;
      case NormalizerStep::Kind::kStrip: {
        absl::string_view rest = out;
        if (step.left) rest = absl::StripLeadingAsciiWhitespace(rest);
        if (step.right) rest = absl::StripTrailingAsciiWhitespace(rest);
        out = std::string(rest);
        break;
      }
    }
  }
  return out;
}

}  // namespace thermocline
