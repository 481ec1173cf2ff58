#!/bin/sh
# Fails when libdomain.a refers to anything but containers, texts, BSON and JSON in memory: the
# domain has no I/O, no clock, no randomness, no environment, no threads, no variables of its own.
#
# usage: check_domain_symbols.sh NM LIBDOMAIN.A
#
# Every outside symbol must match a line below (shell patterns). Who needs another pure function adds
# it here; nothing that opens, waits, asks the time or keeps state outside its arguments belongs in.
set -eu

allowed='
mem* bcmp str* qsort sqrt snprintf sscanf __memcpy_chk __memset_chk __memmove_chk __snprintf_chk __vsnprintf_chk
vsnprintf __isoc99_sscanf __isoc23_strto* __isoc23_sscanf __strcpy_chk __strncpy_chk
__stack_chk_fail __assert_fail abort _GLOBAL_OFFSET_TABLE_
XXH3_64bits* XXH64*
g_free g_free_sized g_malloc* g_realloc* g_try_malloc* g_memdup2 g_clear_pointer
g_array_* g_byte_array_* g_bytes_* g_ptr_array_* g_hash_table_* g_direct_* g_str_* g_int64_*
g_string_* g_str[dnlcjrv]* g_strsplit g_strfreev g_ascii_* g_utf8_* g_snprintf
g_return_if_fail_warning g_assertion_message*
bson_append_* bson_array_* bson_as_canonical_extended_json bson_as_relaxed_extended_json bson_as_json_with_opts bson_json_opts_*
bson_compare bson_copy bson_copy_to bson_count_keys bson_decimal128_* bson_destroy bson_equal
bson_free bson_get_data bson_has_field bson_init bson_init_static bson_iter_* bson_new bson_new_from_json
bson_oid_compare bson_oid_copy bson_oid_equal bson_oid_get_time_t bson_oid_hash bson_oid_init_from_data
bson_oid_init_from_string bson_oid_to_string bson_sized_new bson_strnlen bson_utf8_* bson_validate*
json_array* json_boolean json_decref json_deep_copy json_delete json_dumpb json_equal json_false json_incref
json_integer* json_loadb json_null json_number_value json_object* json_pack json_real* json_string* json_true
__asan_* __ubsan_* __sanitizer_* __sancov_* __start___sancov_* __stop___sancov_* __gcov_* __llvm_*
'

# These match a pattern above but read the clock.
forbidden='bson_append_now_utc bson_array_builder_append_now_utc'

nm=$1
library=$2
[ -s "$library" ] || { echo "no library: $library" >&2; exit 2; }

# What one object defines, another may use: only what none defines comes from outside.
symbols=$("$nm" "$library" | awk '
  NF == 3 { defined[$3] = 1 }
  NF == 2 && ($1 == "U" || $1 == "w" || $1 == "v") { used[$2] = 1 }
  END { for (name in used) if (!(name in defined)) print name }' | sort)
[ -n "$symbols" ] || { echo "nm found no symbols in $library" >&2; exit 2; }

is_allowed() {
  case " $forbidden " in *" $1 "*) return 1 ;; esac
  for pattern in $allowed; do
    # shellcheck disable=SC2254 # it is a pattern
    case $1 in $pattern) return 0 ;; esac
  done
  return 1
}

set -f # the patterns are not file names
status=0
count=0
for symbol in $symbols; do
  count=$((count + 1))
  if ! is_allowed "$symbol"; then
    echo "libdomain.a must not refer to $symbol" >&2
    "$nm" -A "$library" | grep -E " [Uwv] $symbol\$" | sed 's/:[^:]*$//; s/^/  from /' >&2
    status=1
  fi
done
# Variables that start as zero can change: they would be hidden state.
variables=$("$nm" "$library" | awk 'NF == 3 && $2 ~ /^[bBC]$/ && $3 !~ /^__(gcov|asan|odr_asan|llvm)/')
if [ -n "$variables" ]; then
  printf 'libdomain.a must hold no variables:\n%s\n' "$variables" >&2
  status=1
fi
echo "$count outside symbols checked"
exit $status
