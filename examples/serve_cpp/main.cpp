// Segments what an expression refers to in an image, without Python. README.md has the commands.
#include <c10/util/Exception.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "netpbm.h"
#include "served_model.h"

namespace {

constexpr const char* kUsage =
    "usage: rrsis_serve --package FILE.pt2 --image FILE.ppm (--ids \"N N ...\" | --ids_file FILE) [options]\n"
    "  --package    package of python -m rrsis.export\n"
    "  --library    library with operators that the package calls (rrsis_kernels/_C.so); may be given repeatedly\n"
    "  --image      image, binary PPM (P6)\n"
    "  --ids        token ids of the expression, [CLS] and [SEP] included\n"
    "  --ids_file   a file with them\n"
    "  --out        mask to write, binary PGM (default: mask.pgm)\n"
    "  --size       HEIGHTxWIDTH that the image is resized to for the model (default: the model's own)\n"
    "  --threshold  probability above which a pixel belongs to the mask (default: the package's)\n";

struct Arguments {
  std::string package, image, out = "mask.pgm";
  std::optional<std::string> ids, ids_file, size, threshold;
  std::vector<std::string> libraries;
};

Arguments parse(const std::vector<std::string>& words) {
  Arguments arguments;
  for (size_t index = 0; index < words.size(); index += 2) {
    const std::string& option = words[index];
    if (index + 1 == words.size()) {
      throw std::runtime_error(option + ": expected a value");
    }
    const std::string& value = words[index + 1];
    if (option == "--package") {
      arguments.package = value;
    } else if (option == "--library") {
      arguments.libraries.push_back(value);
    } else if (option == "--image") {
      arguments.image = value;
    } else if (option == "--ids") {
      arguments.ids = value;
    } else if (option == "--ids_file") {
      arguments.ids_file = value;
    } else if (option == "--out") {
      arguments.out = value;
    } else if (option == "--size") {
      arguments.size = value;
    } else if (option == "--threshold") {
      arguments.threshold = value;
    } else {
      throw std::runtime_error("unknown option " + option);
    }
  }
  if (arguments.package.empty() || arguments.image.empty() || arguments.ids.has_value() == arguments.ids_file.has_value()) {
    throw std::runtime_error("--package, --image and one of --ids and --ids_file are needed");
  }
  return arguments;
}

// All of a text as values separated by blanks; none where a part of it is something else.
template <typename Value>
std::optional<std::vector<Value>> values_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<Value> values{std::istream_iterator<Value>(stream), std::istream_iterator<Value>()};
  return stream.eof() && !values.empty() ? std::optional(values) : std::nullopt;
}

std::vector<int64_t> token_ids(const Arguments& arguments) {
  std::string text = arguments.ids.value_or("");
  if (arguments.ids_file) {
    std::ifstream file(*arguments.ids_file);
    if (!file) {
      throw std::runtime_error("ids_file: cannot open '" + *arguments.ids_file + "'");
    }
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  const auto ids = values_of<int64_t>(text);
  if (!ids) {
    throw std::runtime_error("ids: expected integers separated by blanks");
  }
  return *ids;
}

ImageSize image_size(std::string text) {
  std::replace(text.begin(), text.end(), 'x', ' ');
  const auto sides = values_of<int64_t>(text);
  if (!sides || sides->size() != 2) {
    throw std::runtime_error("size: expected HEIGHTxWIDTH, for example 480x640");
  }
  return {sides->at(0), sides->at(1)};
}

double probability(const std::string& text) {
  const auto numbers = values_of<double>(text);
  if (!numbers || numbers->size() != 1 || !(numbers->at(0) > 0.0 && numbers->at(0) < 1.0)) {
    throw std::runtime_error("threshold: got '" + text + "', expected a number between 0 and 1");
  }
  return numbers->at(0);
}

void serve(const Arguments& arguments) {
  const std::vector<int64_t> ids = token_ids(arguments);
  const at::Tensor image = read_ppm(arguments.image);
  ServedModel model(arguments.package, arguments.libraries);
  const ImageSize size = arguments.size ? image_size(*arguments.size) : model.own_size();
  const double threshold = arguments.threshold ? probability(*arguments.threshold) : model.threshold();
  const at::Tensor mask = model.mask(image, ids, size, threshold);
  write_pgm(arguments.out, mask);
  const auto inside = static_cast<double>(mask.count_nonzero().item<int64_t>());
  std::cout << "wrote " << arguments.out << ", " << 100.0 * inside / static_cast<double>(mask.numel())
            << " % of the image\n";
}

}  // namespace

int main(int count, char** words) {
  const std::vector<std::string> options(words + 1, words + count);
  if (options.empty() || options.front() == "--help") {
    std::cout << kUsage;
    return options.empty() ? 2 : 0;
  }
  try {
    serve(parse(options));
  } catch (const c10::Error& error) {  // its what() would add a page of stack frames
    std::cerr << "error: " << error.what_without_backtrace() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
