// Renders templates for tables of cases.
#ifndef THERMOCLINE_TESTS_SUPPORT_RENDER_H_
#define THERMOCLINE_TESTS_SUPPORT_RENDER_H_

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"
#include "engine/text/template/chat_template.h"

namespace thermocline {

inline absl::StatusOr<std::string> RenderTemplate(const std::string& source,
                                                  const std::string& inputs = "{}",
                                                  jinja::Budget budget = {}) {
  const auto chat = ChatTemplate::Create(source);
  if (!chat.ok()) return chat.status();
  return (*chat)->Render(*ParseOrderedJson(inputs), SpecialTokenTexts(nullptr), budget);
}

struct RenderCase {
  std::string source;
  std::string text;
};

// Whole templates.
inline void ExpectRendered(const std::vector<RenderCase>& cases) {
  for (const RenderCase& c : cases) {
    const auto text = RenderTemplate(c.source);
    EXPECT_TRUE(text.ok()) << c.source << ": " << text.status();
    if (text.ok()) {
      EXPECT_EQ(*text, c.text) << c.source;
    }
  }
}

// What stands between "{{" and "}}".
inline void ExpectExpressions(std::vector<RenderCase> cases) {
  for (RenderCase& c : cases) c.source = absl::StrCat("{{ ", c.source, " }}");
  ExpectRendered(cases);
}

// INVALID_ARGUMENT whose message holds `text`.
inline void ExpectTemplateErrors(const std::vector<RenderCase>& cases) {
  for (const RenderCase& c : cases) {
    const absl::Status status = RenderTemplate(c.source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.source;
    EXPECT_NE(status.message().find(c.text), std::string::npos) << c.source << ": " << status;
  }
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_RENDER_H_
