// Session: bundle and engine, ready to score; the same name and meaning in Python, C and C++.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "normscan/spec.hpp"
#include "normscan/tensor.hpp"

namespace normscan {

// rgba: what is transparent is seen over black, as in a file with alpha that Python reads.
enum class Channels { grey, rgb, bgr, rgba };
inline constexpr std::array<std::string_view, 4> channel_names = {"grey", "rgb", "bgr", "rgba"};

// Pixels of the caller, one row after the other, the channels of a pixel side by side.
struct Picture {
    const void* pixels = nullptr;
    DType dtype = DType::uint8;  // or uint16, or float32 in 0..1
    Channels channels = Channels::grey;
    std::int64_t width = 0, height = 0;  // in pixels
    std::int64_t row_stride = 0;         // in bytes from one row to the next; 0: rows have nothing between them
    // Where the map goes, float32 [height,width], the picture's own geometry, of `map_room` floats; null: nowhere.
    float* map = nullptr;
    std::int64_t map_room = 0;
};

// Where the time of one call went, in seconds.
struct Times {
    double prepare = 0.0, engine = 0.0, score = 0.0;
};

struct Result {
    double score = 0.0;            // higher is more anomalous
    std::optional<bool> decision;  // true: anomalous (score > threshold); nothing: the bundle has no threshold
    Times times;                   // of the whole call
};

struct SessionOptions {
    std::string engine;  // empty: what the bundle was accepted on, or the first that opens it
    std::string device = "auto";
    int threads = 0;  // of the engine, and of this process's pool; 0: all cores
};

// May be used by many threads at once; the calls share one pool of threads with all other sessions.
class Session {
  public:
    static constexpr std::size_t most_pictures = 4096;  // of one call

    // Throws Error::Kind::bundle and Error::Kind::engine.
    static Session open(const std::string& folder, const SessionOptions& options = {});
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    const ScoringSpec& spec() const;
    double spread() const;                           // the standard deviation of the calibration scores
    const std::array<double, 2>& map_scale() const;  // where the colours of a map begin and end
    const std::string& precision() const;            // of the network: "fp32", "fp16", "bf16" or "int8"
    const std::string& notice() const;               // what the bundle may be used for
    const char* engine() const;
    const char* engine_version() const;

    // Scores a batch of pictures of any sizes, one result each. Throws Error::Kind::argument before anything is
    // written, Error::Kind::picture where pixels or a score are not finite numbers (float pixels: in 0..1), and
    // Error::Kind::cancelled; what is in maps and results is not to be used then.
    void score(std::span<const Picture> pictures, std::span<Result> results) const;

    // Every call of `score` that is under way ends at its next hop.
    void cancel();

  private:
    struct Parts;
    explicit Session(std::unique_ptr<Parts> parts);

    std::unique_ptr<Parts> parts_;
};

}  // namespace normscan
