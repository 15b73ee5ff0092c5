// MarkerScanner: what comes out at once, what is held back, and which marker wins.
#include "engine/text/chat/marker_scanner.h"

#include <gtest/gtest.h>

#include <vector>

namespace thermocline {
namespace {

struct Taken {
  int marker;
  std::string text;
  bool operator==(const Taken& other) const { return marker == other.marker && text == other.text; }
};

Taken Take(MarkerScanner* scanner, const std::vector<absl::string_view>& markers) {
  Taken taken;
  taken.marker = scanner->Take(markers, &taken.text);
  return taken;
}

TEST(MarkerScanner, TakesTextUpToTheFirstMarker) {
  MarkerScanner scanner;
  scanner.Append("ab<x>cd<y>e");
  EXPECT_EQ(Take(&scanner, {"<y>", "<x>"}), (Taken{1, "ab"}));
  EXPECT_EQ(Take(&scanner, {"<y>", "<x>"}), (Taken{0, "cd"}));
  EXPECT_EQ(Take(&scanner, {"<y>", "<x>"}), (Taken{-1, "e"}));
  EXPECT_EQ(Take(&scanner, {"<y>", "<x>"}), (Taken{-1, ""}));
  EXPECT_EQ(scanner.TakeRest(), "");
}

TEST(MarkerScanner, OfSeveralAtOnePlaceTheLongestWins) {
  for (const auto& markers : {std::vector<absl::string_view>{"<x", "<x>", "<"},
                              std::vector<absl::string_view>{"<", "<x>", "<x"},
                              std::vector<absl::string_view>{"<x", "<x>"}}) {
    MarkerScanner scanner;
    scanner.Append("a<x>b<");
    EXPECT_EQ(Take(&scanner, markers), (Taken{1, "a"}));
  }
  // An earlier one wins over a longer one.
  MarkerScanner scanner;
  scanner.Append("abc");
  EXPECT_EQ(Take(&scanner, {"bc", "a"}), (Taken{1, ""}));
  EXPECT_EQ(Take(&scanner, {"bc", "a"}), (Taken{0, ""}));
}

TEST(MarkerScanner, HoldsBackTheLongestEndThatMayBeAMarkersBeginning) {
  struct Case {
    const char *text, *out;
  };
  for (const Case& c :
       {Case{"a<", "a"}, Case{"a<end", "a"}, Case{"a<en<", "a<en"}, Case{"a<enx", "a<enx"},
        Case{"<<<", "<<"}, Case{"a", "a"}, Case{"", ""}, Case{"<", ""}}) {
    MarkerScanner scanner;
    scanner.Append(c.text);
    EXPECT_EQ(Take(&scanner, {"<end>"}), (Taken{-1, c.out})) << c.text;
    EXPECT_EQ(c.out + scanner.TakeRest(), c.text);
  }
  // The longest of two markers' beginnings.
  MarkerScanner scanner;
  scanner.Append("xabab");
  EXPECT_EQ(Take(&scanner, {"abc", "babz"}), (Taken{-1, "xa"}));
  MarkerScanner other;
  other.Append("xabab");
  EXPECT_EQ(Take(&other, {"babz", "abc"}), (Taken{-1, "xa"}));
}

TEST(MarkerScanner, AMarkerMayStraddlePieces) {
  MarkerScanner scanner;
  std::string seen;
  int found = -1;
  for (char c : std::string("one <en><end> two")) {
    scanner.Append(std::string(1, c));
    const Taken taken = Take(&scanner, {"<end>"});
    seen += taken.text;
    if (taken.marker >= 0) {
      EXPECT_EQ(seen, "one <en>");
      found = taken.marker;
    }
  }
  EXPECT_EQ(found, 0);
  EXPECT_EQ(seen, "one <en> two");
}

TEST(MarkerScanner, TheRestIsTakenOnce) {
  MarkerScanner scanner;
  scanner.Append("<e");
  EXPECT_EQ(scanner.TakeRest(), "<e");
  EXPECT_EQ(scanner.TakeRest(), "");
}

}  // namespace
}  // namespace thermocline
