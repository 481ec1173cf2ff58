/* forbidden_symbols.c - what the domain must not do, to show that check_domain_symbols.sh sees
 * it. */
#include <time.h>

int forbidden_symbols(void);

int forbidden_symbols(void) {
  return (int)time(NULL);
}
