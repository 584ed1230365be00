#include "nmt/demo_corpus.h"

#include <unicode/currunit.h>
#include <unicode/datefmt.h>
#include <unicode/measunit.h>
#include <unicode/numberformatter.h>
#include <unicode/rbnf.h>
#include <unicode/reldatefmt.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>

#include "nmt/shuffle.h"
#include "nmt/text.h"
#include "strobe/types.h"

namespace strobe::nmt {
namespace {

constexpr double kMillisecondsPerSecond = 1000.0;
constexpr uint64_t kSecondsPerDay = 86400;
constexpr std::array kCurrencies{u"USD", u"EUR", u"CNY", u"JPY", u"GBP", u"KRW", u"INR", u"CHF"};
constexpr std::array kMeasures{&icu::MeasureUnit::getKilometer,   &icu::MeasureUnit::getMeter,
                               &icu::MeasureUnit::getCentimeter,  &icu::MeasureUnit::getKilogram,
                               &icu::MeasureUnit::getLiter,       &icu::MeasureUnit::getCelsius,
                               &icu::MeasureUnit::getSquareMeter, &icu::MeasureUnit::getKilometerPerHour,
                               &icu::MeasureUnit::getKilowatt,    &icu::MeasureUnit::getMegabyte};
constexpr std::array kRelativeUnits{
    UDAT_REL_UNIT_YEAR, UDAT_REL_UNIT_QUARTER, UDAT_REL_UNIT_MONTH,  UDAT_REL_UNIT_WEEK,   UDAT_REL_UNIT_DAY,
    UDAT_REL_UNIT_HOUR, UDAT_REL_UNIT_MINUTE,  UDAT_REL_UNIT_SECOND, UDAT_REL_UNIT_SUNDAY, UDAT_REL_UNIT_FRIDAY};

void check(UErrorCode status, const std::string& what) {
  if (U_FAILURE(status)) throw Error("demo_pairs: ICU: " + what + ": " + u_errorName(status));
}

/// UTF-8 with every kind of space as ' ': releases of ICU differ in which they write before AM and PM.
std::string text_of(const icu::UnicodeString& phrase) {
  std::string utf8, text;
  phrase.toUTF8String(utf8);
  for (std::size_t i = 0; i < utf8.size();) {
    const CodePoint point = code_point_at(utf8, i);
    is_space(point.value) ? text.append(1, ' ') : text.append(utf8, i, point.bytes);
    i += point.bytes;
  }
  return text;
}

/// What one language calls things.
class Phrases {
 public:
  explicit Phrases(const char* language) : locale_(language) {
    UErrorCode status = U_ZERO_ERROR;
    numbers_ = std::make_unique<icu::RuleBasedNumberFormat>(icu::URBNF_SPELLOUT, locale_, status);
    check(status, std::string("numbers of ") + language);
    relative_ = std::make_unique<icu::RelativeDateTimeFormatter>(locale_, status);
    check(status, std::string("relative times of ") + language);
    dates_ = date_format(icu::DateFormat::kNone);
    times_ = date_format(icu::DateFormat::kShort);
    const auto base = icu::number::NumberFormatter::withLocale(locale_);
    for (const char16_t* code : kCurrencies) {
      const icu::CurrencyUnit currency(code, status);
      named_money_.push_back(base.unit(currency).unitWidth(UNUM_UNIT_WIDTH_FULL_NAME));
      symbol_money_.push_back(base.unit(currency));
    }
    for (const auto measure : kMeasures) measures_.push_back(base.unit(measure()).unitWidth(UNUM_UNIT_WIDTH_FULL_NAME));
    check(status, std::string("currencies of ") + language);
  }

  std::string number(int64_t value) const {
    icu::UnicodeString phrase;
    numbers_->format(value, phrase);
    return text_of(phrase);
  }
  std::string date(UDate moment) const { return formatted(*dates_, moment); }
  std::string date_time(UDate moment) const { return formatted(*times_, moment); }
  std::string named_money(double amount, std::size_t currency) const {
    return formatted(named_money_[currency], amount);
  }
  std::string symbol_money(double amount, std::size_t currency) const {
    return formatted(symbol_money_[currency], amount);
  }
  std::string measure(double amount, std::size_t unit) const { return formatted(measures_[unit], amount); }
  std::string relative(double offset, std::size_t unit) const {
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeString phrase;
    relative_->format(offset, kRelativeUnits[unit], phrase, status);
    check(status, "a relative time");
    return text_of(phrase);
  }

 private:
  using NumberFormat = icu::number::LocalizedNumberFormatter;

  std::unique_ptr<icu::DateFormat> date_format(icu::DateFormat::EStyle time) const {
    std::unique_ptr<icu::DateFormat> format(
        icu::DateFormat::createDateTimeInstance(icu::DateFormat::kFull, time, locale_));
    if (format == nullptr) throw Error(std::string("demo_pairs: ICU: no dates of ") + locale_.getName());
    format->setTimeZone(*icu::TimeZone::getGMT());
    return format;
  }
  static std::string formatted(const icu::DateFormat& format, UDate moment) {
    icu::UnicodeString phrase;
    format.format(moment, phrase);
    return text_of(phrase);
  }
  static std::string formatted(const NumberFormat& format, double amount) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::UnicodeString phrase = format.formatDouble(amount, status).toString(status);
    check(status, "an amount");
    return text_of(phrase);
  }

  icu::Locale locale_;
  std::unique_ptr<icu::RuleBasedNumberFormat> numbers_;
  std::unique_ptr<icu::RelativeDateTimeFormatter> relative_;
  std::unique_ptr<icu::DateFormat> dates_, times_;
  std::vector<NumberFormat> named_money_, symbol_money_, measures_;
};

/// Draws what the phrases are about. Numbers get a random count of digits first, so that short ones are not rare.
class Subjects {
 public:
  explicit Subjects(uint64_t seed) : engine_(seed) {}

  uint64_t below(uint64_t bound) { return draw_below(engine_, bound); }
  int64_t number(uint64_t most_digits) {
    uint64_t bound = 10;
    for (uint64_t digits = below(most_digits); digits > 0; --digits) bound *= 10;
    return static_cast<int64_t>(below(bound));
  }
  double amount(uint64_t most_digits, double unit) { return static_cast<double>(number(most_digits)) * unit; }
  /// Some second of the years 1970 to 2079, in ICU's milliseconds.
  UDate moment() { return static_cast<double>(below(110 * 365 * kSecondsPerDay)) * kMillisecondsPerSecond; }
  /// -150 to 150 without 0, which languages word in ways of their own.
  double offset() { return static_cast<double>(1 + below(150)) * (below(2) == 0 ? 1.0 : -1.0); }

 private:
  std::mt19937_64 engine_;
};

using Phrase = std::function<std::string(const Phrases&)>;

/// One phrase, still in no language.
Phrase draw_phrase(Subjects& subjects) {
  const uint64_t kind = subjects.below(20);
  if (kind < 7) return [n = subjects.number(6)](const Phrases& in) { return in.number(n); };
  if (kind < 10) return [t = subjects.moment()](const Phrases& in) { return in.date(t); };
  if (kind < 13) return [t = subjects.moment()](const Phrases& in) { return in.date_time(t); };
  if (kind < 18) {
    const bool is_money = kind < 16;
    const double amount = is_money ? subjects.amount(7, 0.01) : subjects.amount(5, 0.1);
    const std::size_t unit = subjects.below(is_money ? kCurrencies.size() : kMeasures.size());
    if (kind == 15) return [=](const Phrases& in) { return in.symbol_money(amount, unit); };
    if (is_money) return [=](const Phrases& in) { return in.named_money(amount, unit); };
    return [=](const Phrases& in) { return in.measure(amount, unit); };
  }
  const double offset = subjects.offset();
  const std::size_t unit = subjects.below(kRelativeUnits.size());
  return [=](const Phrases& in) { return in.relative(offset, unit); };
}

}  // namespace

std::vector<SentencePair> demo_pairs(int64_t count, uint64_t seed) {
  const Phrases english("en_US"), chinese("zh_Hans_CN");
  if (english.number(2) != "two" || chinese.number(2) != "二") {
    throw Error("demo_pairs: ICU: expected locale data of English and Chinese, found \"" + english.number(2) +
                "\" and \"" + chinese.number(2) + "\" for 2");
  }
  Subjects subjects(seed);
  std::unordered_set<std::string> sources, targets;
  std::vector<SentencePair> pairs;
  while (static_cast<int64_t>(pairs.size()) < count) {
    const Phrase phrase = draw_phrase(subjects);
    SentencePair pair{phrase(english), phrase(chinese)};
    if (sources.contains(pair.source) || targets.contains(pair.target)) continue;
    sources.insert(pair.source);
    targets.insert(pair.target);
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

}  // namespace strobe::nmt
