#include "core/base/config.h"

#include <cmath>
#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace strata {
namespace {

using testing::ElementsAre;

enum class Flavor : uint8_t { kSweet, kSour };
constexpr std::string_view kFlavorNames[] = {"sweet", "sour"};

struct Sample {
  bool flag = false;
  int64_t count = 3;
  double rate = 0.5;
  std::string name = "x";
  Flavor flavor = Flavor::kSour;
  std::vector<double> weights = {1, 2};
  std::vector<std::string> tags;

  void Describe(ConfigFields& f) {
    f.Add("flag", flag, {.doc = "a flag"});
    f.Add("count", count, {.doc = "how many", .unit = "apples", .min = 1, .max = 10});
    f.Add("rate", rate, {.doc = "how fast", .min = 0});
    f.Add("name", name, {.doc = "what"});
    f.AddChoice("flavor", flavor, kFlavorNames, {.doc = "taste"});
    f.Add("weights", weights, {.doc = "each", .max = 5});
    f.Add("tags", tags, {.doc = "words"});
  }
};

std::vector<ConfigIssue> Limits(Sample sample) {
  ConfigChecks checks;
  for (const ConfigField& field : DescribeFields(sample)) CheckLimits("s", field, checks);
  return checks.issues();
}

TEST(Config, FieldsPointIntoTheStruct) {
  Sample sample;
  const std::vector<ConfigField> fields = DescribeFields(sample);
  ASSERT_EQ(fields.size(), 7u);
  *std::get<bool*>(fields[0].value) = true;
  *std::get<int64_t*>(fields[1].value) = 7;
  *std::get<double*>(fields[2].value) = 0.25;
  *std::get<std::string*>(fields[3].value) = "y";
  const ChoiceRef choice = std::get<ChoiceRef>(fields[4].value);
  EXPECT_EQ(choice.names[*choice.value], "sour");
  *choice.value = 0;
  std::get<std::vector<double>*>(fields[5].value)->push_back(3);
  std::get<std::vector<std::string>*>(fields[6].value)->push_back("t");
  EXPECT_TRUE(sample.flag);
  EXPECT_EQ(sample.count, 7);
  EXPECT_EQ(sample.rate, 0.25);
  EXPECT_EQ(sample.name, "y");
  EXPECT_EQ(sample.flavor, Flavor::kSweet);
  EXPECT_THAT(sample.weights, ElementsAre(1, 2, 3));
  EXPECT_THAT(sample.tags, ElementsAre("t"));
  EXPECT_EQ(fields[1].info.unit, "apples");
}

TEST(Config, LimitsNameTheValueAndTheNearestOne) {
  EXPECT_TRUE(Limits({}).empty());
  EXPECT_TRUE(Limits({.count = 10}).empty());

  std::vector<ConfigIssue> issues = Limits({.count = 11, .rate = -1, .weights = {1, 6}});
  ASSERT_EQ(issues.size(), 3u);
  EXPECT_EQ(issues[0].kind, ConfigErrorKind::kOutOfRange);
  EXPECT_EQ(issues[0].key, "s.count");
  EXPECT_EQ(issues[0].message, "s.count = 11: must be from 1 to 10 apples");
  EXPECT_EQ(issues[0].hint, "nearest valid: 10");
  EXPECT_EQ(issues[1].message, "s.rate = -1.0: must be at least 0.0");
  EXPECT_EQ(issues[1].hint, "nearest valid: 0.0");
  EXPECT_EQ(issues[2].message, "s.weights = 6.0: must be at most 5.0");
}

TEST(Config, NumbersMustBeFinite) {
  EXPECT_EQ(Limits({.rate = std::nan("")}).size(), 1u);
  const std::vector<ConfigIssue> issues = Limits({.rate = INFINITY});
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_EQ(issues[0].message, "s.rate = inf: must be at least 0.0");
}

TEST(Config, DividesReportsOnceAndTheNearestDivisor) {
  ConfigChecks checks;
  checks.Divides({"a", 4}, {"b", 12});
  EXPECT_TRUE(checks.issues().empty());
  checks.Divides({"a", 5}, {"b", 12});
  ASSERT_EQ(checks.issues().size(), 1u);
  EXPECT_EQ(checks.issues()[0].message, "a = 5: must divide b = 12");
  EXPECT_EQ(checks.issues()[0].hint, "nearest valid: 4");
  EXPECT_FALSE(checks.Ok({"c", "a"}));
  EXPECT_TRUE(checks.Ok({"b", "c"}));
  checks.Divides({"a", 7}, {"b", 12});  // a is known to be wrong
  EXPECT_EQ(checks.issues().size(), 1u);
}

TEST(Config, NearestDivisor) {
  EXPECT_EQ(NearestDivisor(12, 5), 4);  // not 6: the lower one
  EXPECT_EQ(NearestDivisor(12, 100), 12);
  EXPECT_EQ(NearestDivisor(13, 6), 1);
  EXPECT_EQ(NearestDivisor(1, 9), 1);
  EXPECT_EQ(NearestDivisor(64, 64), 64);
}

TEST(Config, DoublesReadBackTheSame) {
  EXPECT_EQ(FormatDouble(3), "3.0");
  EXPECT_EQ(FormatDouble(0.1), "0.1");
  EXPECT_EQ(FormatDouble(1e-8), "1e-08");
  EXPECT_EQ(FormatDouble(-2.5e300), "-2.5e+300");
  for (double x : {1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.125}) {
    EXPECT_EQ(std::strtod(FormatDouble(x).c_str(), nullptr), x);
  }
}

}  // namespace
}  // namespace strata
